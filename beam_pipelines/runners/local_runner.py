"""Beam's local runner with worker processes or threads that it reaches by Unix sockets in a folder of our own.

Beam's own servers listen on all addresses of the machine, and ask nobody who they are; one of their services hands out
any file that is named to it. Here each service listens on a socket that only this user can reach, and that one is
left out: it is for workers which must fetch the pipeline's files, and ours have them.

It rests on these names of Beam 2.77, which are not for others (`tests/beam_pipelines/runners/test_local_runner.py`
fails where they change; a run of one process then does the work, without any of this, and no server listens elsewhere):

* `apache_beam/runners/portability/fn_api_runner/fn_runner.py`: `FnApiRunner.run_stages` makes a
  `WorkerHandlerManager`, by that global name, of the environments and the provision info; `run_pipeline` takes the
  given environment where `direct_running_mode` is none of its own; `_num_workers` is how many workers it asks for.
* `apache_beam/runners/portability/fn_api_runner/worker_handlers.py`: `WorkerHandlerManager` makes a `GrpcServer` in
  `get_worker_handlers` where its `_grpc_server` is None, and closes it in `close_all`. `GrpcWorkerHandler` uses of it
  the two handlers and the four ports, by way of `port_from_worker`.
* `apache_beam/runners/worker/sdk_worker_main.py`: the environment variables that a worker process reads.
"""

from __future__ import annotations

import dataclasses
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import grpc  # type: ignore[import-untyped]
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_fn_api_pb2_grpc, beam_runner_api_pb2, endpoints_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner import worker_handlers as beams
from apache_beam.runners.portability.fn_api_runner.fn_runner import RunnerResult
from apache_beam.runners.worker.data_plane import BeamFnDataServicer
from apache_beam.runners.worker.sdk_worker import SdkHarness
from apache_beam.transforms.environments import Environment, python_sdk_capabilities
from apache_beam.utils import thread_pool_executor
from google.protobuf import text_format  # type: ignore[import-untyped]

from transforms.errors import BroetchenError

SOCKETS = ("control", "data", "state", "logging")
"""The names of the sockets."""
RUNNING_MODE = "sockets"
"""The value of `direct_running_mode` for this runner: none of Beam's own, for which it would start workers itself."""

UNKNOWN_BEAM = "this version of Beam starts its servers in a way that is not known here"
"""The warning of a Beam that `knows_beam` does not know."""

_URN = "broetchen:env:local_worker:v1"
# As Beam's own servers have them: messages of any size, and clients that ask as often as they like for a sign of life.
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
]
_STOPPED_S = 5.0
# A worker whose work is done, or whose driver failed, ends by itself within milliseconds, unless native code keeps it.
_ENDED_S = 10.0


@dataclasses.dataclass(frozen=True)
class WorkerOrder:
    """A worker's start: its name, and the addresses, for gRPC, of its control and its log."""

    worker_id: str
    control: str
    logging: str

    def variables(self) -> dict[str, str]:
        """The environment variables by which `sdk_worker_main` is told the same."""
        return {
            "CONTROL_API_SERVICE_DESCRIPTOR": _descriptor(self.control),
            "LOGGING_API_SERVICE_DESCRIPTOR": _descriptor(self.logging),
            "PIPELINE_OPTIONS": "{}",
            "WORKER_ID": self.worker_id,
        }


def knows_beam() -> bool:
    """Whether this version of Beam makes its workers and their server where ours can take their place."""
    makes_server = beams.WorkerHandlerManager.get_worker_handlers.__code__.co_names
    return beams.WorkerHandlerManager.__name__ in FnApiRunner.run_stages.__code__.co_names and (
        {"_grpc_server", beams.GrpcServer.__name__} <= set(makes_server)
    )


def _descriptor(address: str) -> str:
    text: str = text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=address))
    return text


class Worker(Protocol):
    """A worker that was started."""

    def wait(self) -> None:
        """Returns once it has ended.

        Raises:
            RuntimeError: it failed, or somebody else killed it.
        """

    def kill(self) -> None:
        """Ends it, whatever it is doing."""


class WorkerThread:
    """A worker in this process."""

    def __init__(self, order: WorkerOrder) -> None:
        self._harness = SdkHarness(
            order.control,
            worker_id=order.worker_id,
            state_cache_size=beams.STATE_CACHE_SIZE_MB * beams.MB_TO_BYTES,
            data_buffer_time_limit_ms=beams.DATA_BUFFER_TIME_LIMIT_MS,
            runner_capabilities=beams.FNAPI_RUNNER_CAPABILITIES,
        )

    def wait(self) -> None:
        """Does its work, until it is told that there is no more."""
        self._harness.run()

    def kill(self) -> None:
        """Does nothing: a thread ends by itself."""


class Runner(FnApiRunner):
    """Runs a pipeline with workers that `start` starts.

    Args:
        listen: the address, for gRPC, at which the service of this name of `SOCKETS` listens; port 0 is any that is
            free.
        start: starts one worker.
        keepalives: gRPC's options for servers whose workers may be lost without a word.
    """

    def __init__(
        self,
        listen: Callable[[str], str],
        start: Callable[[WorkerOrder], Worker],
        keepalives: Sequence[tuple[str, int]] = (),
    ) -> None:
        super().__init__(_WorkerEnvironment(capabilities=python_sdk_capabilities()))
        self._listening = _Listening(listen, start, keepalives)

    def run_graph(self, graph: beam_runner_api_pb2.Pipeline, workers: int) -> RunnerResult:
        """Runs a pipeline that another process has made, for any kind of workers.

        Args:
            graph: it is changed: all of its environments become that of the workers, and nothing is staged for them.
            workers: how many there are to be.
        """
        for environment in graph.components.environments.values():
            environment.urn, environment.payload = _URN, b""
            del environment.dependencies[:]
        self._num_workers = workers
        return self.run_via_runner_api(graph, PipelineOptions([]))

    def run_stages(self, stage_context: Any, stages: Any) -> Any:
        """Beam's own, with our manager of workers in the place of its own; for this runner alone."""
        run_stages = FnApiRunner.run_stages
        if not knows_beam():
            raise _unknown_beam()
        names = {**run_stages.__globals__, beams.WorkerHandlerManager.__name__: self._manager}
        ours = types.FunctionType(run_stages.__code__, names, "run_stages", closure=run_stages.__closure__)
        return ours(self, stage_context, stages)

    def _manager(self, environments: Mapping[str, Any], provision_info: Any) -> _Manager:
        return _Manager(environments, provision_info, self._listening)


class LocalRunner(Runner):
    """Runs a pipeline with workers of this machine that `start` starts.

    Args:
        folder: of the sockets; nobody else can look into it. It holds nothing else.
        start: starts one worker.
    """

    def __init__(self, folder: Path, start: Callable[[WorkerOrder], Worker]) -> None:
        # gRPC takes an address for a URI.
        super().__init__(lambda name: f"unix:{quote(bytes(folder / name))}", start)


@dataclasses.dataclass(frozen=True)
class _Listening:
    """The arguments of a runner for its server; see there."""

    listen: Callable[[str], str]
    start: Callable[[WorkerOrder], Worker]
    keepalives: Sequence[tuple[str, int]]


class _Manager(beams.WorkerHandlerManager):
    def __init__(self, environments: Mapping[str, Any], provision_info: Any, listening: _Listening) -> None:
        super().__init__(environments, provision_info)
        self._listening = listening

    def get_worker_handlers(self, environment_id: str | None, num_workers: int) -> list[beams.WorkerHandler]:
        if self._grpc_server is None:
            ours: Any = _Server(self._listening, self.state_servicer, self)
            self._grpc_server = ours
        return super().get_worker_handlers(environment_id, num_workers)


class _Server:
    """Takes the place of Beam's `GrpcServer`; a "port" is the whole address of a service."""

    def __init__(self, listening: _Listening, state: Any, manager: beams.WorkerHandlerManager) -> None:
        self.start, self._listening = listening.start, listening
        self._servers: list[Any] = []
        self.control_handler = beams.BeamFnControlServicer(manager)
        self.data_plane_handler = BeamFnDataServicer(beams.DATA_BUFFER_TIME_LIMIT_MS)
        api, logs = beam_fn_api_pb2_grpc, beams.BasicLoggingService()
        self.logging_port = self._serve("logging", api.add_BeamFnLoggingServicer_to_server, logs)
        self.state_port = self._serve("state", api.add_BeamFnStateServicer_to_server, beams.GrpcStateServicer(state))
        self.data_port = self._serve("data", api.add_BeamFnDataServicer_to_server, self.data_plane_handler)
        self.control_port = self._serve("control", api.add_BeamFnControlServicer_to_server, self.control_handler)

    def _serve(self, name: str, add: Callable[[Any, Any], None], service: Any) -> str:
        options = [*_OPTIONS, *self._listening.keepalives]
        server = grpc.server(thread_pool_executor.shared_unbounded_instance(), options=options)
        address = self._listening.listen(name)
        port = server.add_insecure_port(address)
        add(service, server)
        server.start()
        self._servers.append(server)
        return f"{address.removesuffix(':0')}:{port}" if address.endswith(":0") else address

    def close(self) -> None:
        self.control_handler.done()
        for stopping in [server.stop(_STOPPED_S) for server in self._servers]:
            stopping.wait()


@Environment.register_urn(_URN, None)
class _WorkerEnvironment(Environment):
    """The environment of the command itself, for workers that have it."""

    def to_runner_api_parameter(self, context: Any) -> tuple[str, None]:
        return _URN, None

    @staticmethod
    def from_runner_api_parameter(
        payload: Any, capabilities: Any, artifacts: Any, resource_hints: Any, context: Any
    ) -> _WorkerEnvironment:
        return _WorkerEnvironment(capabilities, artifacts, resource_hints)


@beams.WorkerHandler.register_environment(_URN, None)
class _WorkerHandler(beams.GrpcWorkerHandler):
    def __init__(self, payload: None, state: Any, provision_info: Any, grpc_server: Any) -> None:
        _check_ours(grpc_server)
        super().__init__(state, provision_info, grpc_server)
        self._start = grpc_server.start
        self._ended: threading.Thread | None = None

    def port_from_worker(self, port: Any) -> str:
        address: str = port
        return address

    def start_worker(self) -> None:
        self._worker = self._start(
            WorkerOrder(
                self.worker_id, self.control_api_service_descriptor().url, self.logging_api_service_descriptor().url
            )
        )
        # A worker's death is told by an error in the thread of this name; see `failures`.
        self._ended = threading.Thread(name="run_worker", target=self._worker.wait, daemon=True)
        self._ended.start()

    def stop_worker(self) -> None:
        if self._ended is None:
            return  # It could not be started.
        self._ended.join(_ENDED_S)
        if self._ended.is_alive():
            self._worker.kill()
            self._ended.join()


def _check_ours(server: object) -> None:
    if not isinstance(server, _Server):
        raise _unknown_beam()


def _unknown_beam() -> BroetchenError:
    return BroetchenError(f"{UNKNOWN_BEAM}, where others might reach them; take the version in requirements.lock")
