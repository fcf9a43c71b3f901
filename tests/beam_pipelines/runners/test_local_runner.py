"""Beam's local runner over Unix sockets: its services, and that it still is the Beam that it was made for."""

from __future__ import annotations

import inspect
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apache_beam as beam
import grpc  # type: ignore[import-untyped]
import pytest
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import (
    beam_artifact_api_pb2,
    beam_artifact_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_runner_api_pb2,
)
from apache_beam.runners.portability.fn_api_runner import FnApiRunner, worker_handlers
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo

from beam_pipelines.runners import local_runner
from beam_pipelines.runners.local_runner import (
    RUNNING_MODE,
    SOCKETS,
    LocalRunner,
    Worker,
    WorkerOrder,
    WorkerThread,
    knows_beam,
)
from transforms.errors import BroetchenError


@pytest.fixture
def folder() -> Iterator[Path]:
    """One whose name would mean other things in an address."""
    place = Path(tempfile.mkdtemp(prefix="b %20ü#?", dir="/tmp"))
    yield place
    shutil.rmtree(place)


def options() -> PipelineOptions:
    result = PipelineOptions()
    result.view_as(DirectOptions).direct_running_mode = RUNNING_MODE
    result.view_as(DirectOptions).direct_num_workers = 2
    return result


def run(folder: Path, start: Callable[[WorkerOrder], Worker]) -> None:
    with beam.Pipeline(LocalRunner(folder, start), options()) as pipeline:
        counts = pipeline | beam.Create(range(100)) | beam.Reshuffle() | beam.combiners.Count.Globally()
        _ = counts | beam.Map(lambda count: None if count == 100 else pytest.fail(f"{count}"))


def artifact(address: str, path: Path) -> bytes:
    """The bytes of a file that the service for artifacts hands out."""
    payload = beam_runner_api_pb2.ArtifactFilePayload(path=str(path)).SerializeToString()
    request = beam_artifact_api_pb2.GetArtifactRequest(
        artifact=beam_runner_api_pb2.ArtifactInformation(
            type_urn=common_urns.artifact_types.FILE.urn, type_payload=payload
        )
    )
    with grpc.insecure_channel(address) as channel:
        stub = beam_artifact_api_pb2_grpc.ArtifactRetrievalServiceStub(channel)
        return b"".join(response.data for response in stub.GetArtifact(request, timeout=10))


def test_workers_are_reached_by_the_sockets_alone_and_files_are_not_handed_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "private").write_text("a secret")
    orders: list[WorkerOrder] = []

    def start(order: WorkerOrder) -> Worker:
        assert {path.name for path in folder.iterdir()} == set(SOCKETS)
        assert all(path.is_socket() for path in folder.iterdir())
        for socket in folder.iterdir():
            with pytest.raises(grpc.RpcError) as refused:
                artifact(f"unix:{quote(str(socket))}", tmp_path / "private")
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
        orders.append(order)
        return WorkerThread(order)

    run(folder, start)
    assert len({order.worker_id for order in orders}) == 2
    assert {(order.control, order.logging) for order in orders} == {
        (f"unix:{quote(str(folder))}/control", f"unix:{quote(str(folder))}/logging")
    }


def test_beams_own_server_hands_out_files(tmp_path: Path) -> None:
    """Without our own server, the test above would get the secret."""
    (tmp_path / "private").write_text("a secret")
    provided = ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(retrieval_token="unused"))
    nobody: Any = None
    server = worker_handlers.GrpcServer(worker_handlers.StateServicer(), provided, nobody)
    try:
        assert artifact(f"localhost:{server.control_port}", tmp_path / "private") == b"a secret"
    finally:
        server.close()


def test_a_worker_that_cannot_be_started_ends_the_run_with_the_reason(folder: Path) -> None:
    def start(_: WorkerOrder) -> Worker:
        raise OSError("no more processes")

    with pytest.raises(OSError, match=r"^no more processes$"):
        run(folder, start)


def test_a_worker_that_does_not_end_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_runner, "_ENDED_S", 0.01)
    killed: list[WorkerThread] = []

    class Slow(WorkerThread):
        def wait(self) -> None:
            super().wait()
            while not killed:
                time.sleep(0.01)

        def kill(self) -> None:
            killed.append(self)

    run(folder, Slow)
    assert killed


def test_beams_server_serves_what_ours_does_and_the_two_that_are_left_out() -> None:
    """A new service in Beam, or one that has gone, is looked at before that version of Beam is taken."""
    source = inspect.getsource(worker_handlers.GrpcServer)
    assert set(re.findall(r"\.add_(\w+)_to_server\(", source)) == {
        "BeamFnControlServicer",
        "BeamFnDataServicer",
        "BeamFnStateServicer",
        "BeamFnLoggingServicer",
        "ProvisionServiceServicer",
        "ArtifactRetrievalServiceServicer",
    }
    assert len(re.findall(r"add_insecure_port\('\[::\]:0'\)", source)) == len(SOCKETS)
    assert set(re.findall(r'\("(grpc\.[\w.]+)", (-?[\d_]+)\)', source)) == {
        (name, f"{value:_}") for name, value in local_runner._OPTIONS
    }


def test_beam_uses_of_its_server_what_ours_has() -> None:
    source = inspect.getsource(worker_handlers.GrpcWorkerHandler)
    used = set(re.findall(r"grpc_server\.(\w+)", source))
    assert used == {
        "control_handler",
        "data_plane_handler",
        "control_port",
        "data_port",
        "state_port",
        "logging_port",
    }
    manager = inspect.getsource(worker_handlers.WorkerHandlerManager)
    assert set(re.findall(r"_grpc_server\.(\w+)", manager)) == {"close"}
    assert re.search(r"elif self\._grpc_server is None:\s+self\._grpc_server = GrpcServer\(", manager)


def test_beam_makes_its_manager_of_workers_where_ours_is_put() -> None:
    assert "WorkerHandlerManager" in FnApiRunner.run_stages.__code__.co_names
    assert list(inspect.signature(worker_handlers.WorkerHandlerManager.__init__).parameters) == [
        "self",
        "environments",
        "job_provision_info",
    ]
    assert list(inspect.signature(worker_handlers.WorkerHandlerManager.get_worker_handlers).parameters) == [
        "self",
        "environment_id",
        "num_workers",
    ]
    assert knows_beam()
    assert RUNNING_MODE not in ("in_memory", "multi_threading", "multi_processing")


def test_an_unknown_beam_is_refused_before_it_listens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_stages(self: Any, stage_context: Any, stages: Any) -> Any:
        pytest.fail("it runs")

    def never(*_: object) -> None:
        pytest.fail("it listens")

    monkeypatch.setattr(FnApiRunner, "run_stages", run_stages)
    monkeypatch.setattr(worker_handlers.GrpcServer, "__init__", never)
    with pytest.raises(BroetchenError, match="this version of Beam starts its servers in a way that is not known here"):
        run(folder, WorkerThread)


def test_a_server_of_beams_own_gets_no_worker() -> None:
    with pytest.raises(BroetchenError, match="not known here"):
        local_runner._WorkerHandler(None, None, None, object())
