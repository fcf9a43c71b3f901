"""The calls between the job service and the hosts' workers: JSON over gRPC, and signs of life on each connection.

A connection whose other end has gone without a word, by a cut cable or a dead machine, is over within
`LOST_S` seconds for both: each end asks for a sign of life every 10 s and waits for it as long. Beam's own clients wait
5 minutes, and its servers 2 hours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import grpc  # type: ignore[import-untyped]
from apache_beam.utils import thread_pool_executor

from beam_pipelines.cluster.addresses import listen_at

LOST_S = 20.0
"""Seconds after which an end is taken for lost."""
ANSWER_S = 10.0
"""Seconds within which a host answers."""

KEEPALIVES = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Of clients: as often as they like.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)
"""Options of servers within a cluster."""
TO_HOSTS = (
    *KEEPALIVES,
    # Hosts of a cluster are reached directly.
    ("grpc.enable_http_proxy", 0),
)
"""Options of channels within a cluster."""
_SERVER = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Another process at the same address is to be an error.
    ("grpc.so_reuseport", 0),
)
_POOL = "broetchen-worker-pool"

type Answer = dict[str, Any]


def new_server() -> Any:
    """A server of gRPC that nobody reaches yet."""
    return grpc.server(thread_pool_executor.shared_unbounded_instance(), options=[*_SERVER, *KEEPALIVES])


def new_channel(address: str) -> Any:
    """A channel to an address."""
    return grpc.insecure_channel(address, options=list(TO_HOSTS))


def serve_calls(server: Any, calls: Mapping[str, Callable[[Answer], Answer]]) -> None:
    """Has a server answer calls by these names, each with a JSON object for a JSON object."""

    def handler(call: Callable[[Answer], Answer]) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            lambda request, _: call(request), request_deserializer=json.loads, response_serializer=_encoded
        )

    handlers = {name: handler(call) for name, call in calls.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_POOL, handlers),))


def call(channel: Any, name: str, **asked: Any) -> Answer:
    """Calls a host's workers.

    Raises:
        grpc.RpcError: they do not answer within `ANSWER_S`.
    """
    calling = channel.unary_unary(f"/{_POOL}/{name}", request_serializer=_encoded, response_deserializer=json.loads)
    answer: Answer = calling(asked, timeout=ANSWER_S)
    return answer


def started_server(server: Any, address: str) -> None:
    """Starts a server at the address of `--address`, and nowhere else.

    Raises:
        BroetchenError: it cannot listen there.
    """
    listen_at(server, "--address", address)
    server.start()


def _encoded(content: object) -> bytes:
    return json.dumps(content).encode()
