"""The workers of one host: starts a process for each worker that a job asks for, and ends those of a job that is over.

Also answers to Beam's own protocol for worker pools (`--environment_type=EXTERNAL`), for runners that are not ours.
"""

from __future__ import annotations

import collections
import logging
import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from typing import Any

import apache_beam
import grpc  # type: ignore[import-untyped]
import psutil
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
)
from google.protobuf import json_format  # type: ignore[import-untyped]

from beam_pipelines.cluster import worker
from beam_pipelines.cluster.calls import ANSWER_S, Answer, new_channel, new_server, serve_calls, started_server
from beam_pipelines.cluster.family import start_module, until_stopped
from beam_pipelines.runners.local_runner import WorkerOrder
from transforms.errors import BroetchenError, one_line

_LOGGER = logging.getLogger(__name__)
_MEMORY_PER_WORKER = 1 << 30
_LINES = 20
# Of workers that have ended and that nobody has asked for since.
_MOST_ENDED = 1000
_STOPPED_S = 5.0


def default_processes() -> int:
    """A process for each processor, as far as the memory goes that is free."""
    return max(1, min(os.cpu_count() or 1, psutil.virtual_memory().available // _MEMORY_PER_WORKER))


def run_pool(address: str, processes: int, ready: Callable[[], None] = lambda: None) -> None:
    """Serves a host's workers until Ctrl-C or SIGTERM, which ends those that are at work.

    Args:
        address: `HOST:PORT` by which the other hosts reach this one.
        processes: how many a job is to take here.
        ready: is called when it takes jobs.

    Raises:
        BroetchenError: this process cannot listen there.
    """
    pool = WorkerPool(processes)
    server = new_server()
    serve_calls(server, {"look": pool.look, "start": pool.start, "end": pool.end})
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(_BeamsProtocol(pool), server)
    started_server(server, address)
    _LOGGER.info("%s: up to %d worker processes for each job; Ctrl-C ends them", address, processes)
    ready()

    def stop() -> None:
        server.stop(_STOPPED_S)
        pool.end({"job": None})

    until_stopped(stop)


class _Process:
    """A worker process, and the last lines of its output."""

    def __init__(self, order: WorkerOrder, options: str) -> None:
        variables = {**order.variables(), "PIPELINE_OPTIONS": options}
        self._process = start_module(worker.__name__, variables, stderr=subprocess.PIPE)
        self._lines: collections.deque[str] = collections.deque(maxlen=_LINES)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as said:
            for line in said:
                self._lines.append(line.decode(errors="replace").rstrip())
                _LOGGER.debug("%s", self._lines[-1])
        self._process.wait()  # Leaves no defunct process behind.

    def state(self) -> Answer:
        """Its exit code, None where it works, and the last line that it has said."""
        return {"code": self._process.poll(), "said": self._lines[-1] if self._lines else ""}

    def end(self) -> None:
        self._process.kill()
        self._reader.join(_STOPPED_S)


class WorkerPool:
    """Worker processes, by job and by the name that the job gives to each.

    Args:
        processes: how many a job is to take here.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._workers: dict[tuple[str, str], _Process] = {}
        self._lock = threading.Lock()

    def look(self, asked: Mapping[str, Any]) -> Answer:
        """Tells a job about this host: how many processes it may take, Beam's version, and how the job's own do."""
        with self._lock:
            own = {name: process for (job, name), process in self._workers.items() if job == asked.get("job")}
        return {
            "processes": self._processes,
            "beam": apache_beam.__version__,
            "workers": {name: process.state() for name, process in own.items()},
        }

    def start(self, asked: Mapping[str, Any]) -> Answer:
        """Starts a worker.

        Args:
            asked: `job`; `worker`, `control` and `logging` as in `WorkerOrder`; `options` of the pipeline, JSON.
        """
        order = WorkerOrder(str(asked["worker"]), str(asked["control"]), str(asked["logging"]))
        job = str(asked["job"])
        with self._lock:
            ended = [key for key, process in self._workers.items() if process.state()["code"] is not None]
            for key in ended[:-_MOST_ENDED]:
                del self._workers[key]
            self._workers[job, order.worker_id] = _Process(order, str(asked["options"]))
        _LOGGER.info("a worker process for job %s", job or "of another service")
        return {}

    def end(self, asked: Mapping[str, Any]) -> Answer:
        """Ends the workers of `job`, all where it is None, or only its `worker`, whatever they are doing."""
        job, name = asked["job"], asked.get("worker")
        with self._lock:
            keys = [key for key in self._workers if job in (None, key[0]) and name in (None, key[1])]
            ending = [self._workers.pop(key) for key in keys]
        for process in ending:
            process.end()
        return {}


class _BeamsProtocol(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """The service that Beam's runners ask for workers."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    def StartWorker(
        self, request: beam_fn_api_pb2.StartWorkerRequest, context: object
    ) -> beam_fn_api_pb2.StartWorkerResponse:
        asked = {"worker": request.worker_id, "control": request.control_endpoint.url}
        asked |= {"logging": request.logging_endpoint.url, "job": ""}
        try:
            asked["options"] = _options(request)
            self._pool.start(asked)
        except (OSError, BroetchenError) as error:
            return beam_fn_api_pb2.StartWorkerResponse(error=str(error))
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(
        self, request: beam_fn_api_pb2.StopWorkerRequest, context: object
    ) -> beam_fn_api_pb2.StopWorkerResponse:
        self._pool.end({"job": "", "worker": request.worker_id})
        return beam_fn_api_pb2.StopWorkerResponse()


def _options(request: beam_fn_api_pb2.StartWorkerRequest) -> str:
    """The options of the pipeline as JSON, which the runner provides for the worker; none where it provides none.

    Raises:
        BroetchenError: it does not answer.
    """
    endpoint = request.provision_endpoint.url
    if not endpoint:
        return "{}"
    with new_channel(endpoint) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        asked = beam_provision_api_pb2.GetProvisionInfoRequest()
        try:
            # A service of several workers tells them apart by this name.
            found = service.GetProvisionInfo(asked, timeout=ANSWER_S, metadata=(("worker_id", request.worker_id),))
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                return "{}"
            reason = one_line(error.details() or error.code().name)
            raise BroetchenError(
                f"the runner does not say at {one_line(endpoint)} with which options the worker is to start "
                f"({reason}); check that this host reaches it there"
            ) from error
    return str(json_format.MessageToJson(found.info.pipeline_options, indent=None))
