"""The job service and the workers of a host, asked by Beam's own clients."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import grpc  # type: ignore[import-untyped]
import psutil
import pytest
from apache_beam.portability import common_urns
from apache_beam.portability.api import (
    beam_artifact_api_pb2,
    beam_artifact_api_pb2_grpc,
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_job_api_pb2,
    beam_job_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    beam_runner_api_pb2,
)
from apache_beam.transforms.environments import DockerEnvironment

from beam_pipelines.cluster.calls import call, new_channel, new_server, serve_calls, started_server
from beam_pipelines.cluster.family import start_module
from beam_pipelines.cluster.hosts import Host, Hosts, end_job
from beam_pipelines.cluster.pool import WorkerPool, _BeamsProtocol
from beam_pipelines.cluster.service import JobService, _NoStaging, why_not
from tests.support.documents import ROOT
from transforms.errors import BroetchenError


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def service() -> Iterator[str]:
    """A job service whose only workers are not there."""
    address, server = free_address(), new_server()
    jobs = JobService(address, [free_address()])
    beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
    beam_artifact_api_pb2_grpc.add_ArtifactStagingServiceServicer_to_server(_NoStaging(), server)
    started_server(server, address)
    yield address
    jobs.close()
    server.stop(0)


@contextlib.contextmanager
def pool_at(processes: int) -> Iterator[str]:
    address, server, pool = free_address(), new_server(), WorkerPool(processes)
    serve_calls(server, {"look": pool.look, "start": pool.start, "end": pool.end})
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(_BeamsProtocol(pool), server)
    started_server(server, address)
    yield address
    server.stop(0)
    pool.end({"job": None})


def graph() -> Any:
    pipeline = beam.Pipeline()
    _ = pipeline | beam.Create([1, 2, 3]) | beam.Map(lambda number: number + 1)
    made = pipeline.to_runner_api(default_environment=DockerEnvironment.from_container_image("any"))
    for environment in made.components.environments.values():
        del environment.dependencies[:]
    return made


def bringing(name: str) -> Any:
    made = graph()
    for environment in made.components.environments.values():
        environment.dependencies.add(
            role_urn=common_urns.artifact_roles.STAGING_TO.urn,
            role_payload=beam_runner_api_pb2.ArtifactStagingToRolePayload(staged_name=name).SerializeToString(),
        )
    return made


def test_which_pipelines_are_taken() -> None:
    assert why_not(graph()) == ""
    assert why_not(bringing("submission_environment_dependencies.txt")) == ""
    assert why_not(bringing("mine-1.0.tar.gz")).startswith("the job brings mine-1.0.tar.gz for its workers")
    other = graph()
    for environment in other.components.environments.values():
        environment.capabilities[:] = ["beam:version:sdk_base:apache/beam_python3.11_sdk:2.60.0"]
    assert why_not(other).startswith("the command has apache/beam_python3.11_sdk:2.60.0, and the cluster ")


def test_a_job_that_brings_files_is_refused_and_an_unknown_one_is_not_known(service: str) -> None:
    with grpc.insecure_channel(service) as channel:
        stub = beam_job_api_pb2_grpc.JobServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Prepare(beam_job_api_pb2.PrepareJobRequest(job_name="job", pipeline=bringing("a.whl")))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        for method, request in (
            ("GetState", beam_job_api_pb2.GetJobStateRequest(job_id="x\n")),
            ("Run", beam_job_api_pb2.RunJobRequest(preparation_id="x\n")),
            ("Cancel", beam_job_api_pb2.CancelJobRequest(job_id="x\n")),
            ("GetJobMetrics", beam_job_api_pb2.GetJobMetricsRequest(job_id="x\n")),
        ):
            with pytest.raises(grpc.RpcError) as unknown:
                getattr(stub, method)(request)
            assert unknown.value.code() == grpc.StatusCode.NOT_FOUND, method
        with pytest.raises(grpc.RpcError) as unknown:
            list(stub.GetStateStream(beam_job_api_pb2.GetJobStateRequest(job_id="x\n")))
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


def test_no_file_is_handed_out_or_taken(service: str, tmp_path: Path) -> None:
    """Beam's own server gives any file that is named: `test_beams_own_server_hands_out_files`."""
    (tmp_path / "private").write_text("a secret")
    payload = beam_runner_api_pb2.ArtifactFilePayload(path=str(tmp_path / "private")).SerializeToString()
    information = beam_runner_api_pb2.ArtifactInformation(
        type_urn=common_urns.artifact_types.FILE.urn, type_payload=payload
    )
    with pool_at(1) as pool:
        for address in (service, pool):
            with grpc.insecure_channel(address) as channel:
                stub = beam_artifact_api_pb2_grpc.ArtifactRetrievalServiceStub(channel)
                with pytest.raises(grpc.RpcError) as refused:
                    list(stub.GetArtifact(beam_artifact_api_pb2.GetArtifactRequest(artifact=information), timeout=10))
                assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with grpc.insecure_channel(service) as channel:
        staging = beam_artifact_api_pb2_grpc.ArtifactStagingServiceStub(channel)
        offered = iter([beam_artifact_api_pb2.ArtifactResponseWrapper(staging_token="job")])
        assert list(staging.ReverseArtifactRetrievalService(offered, timeout=10)) == []


def test_a_job_without_workers_fails_and_one_that_has_not_begun_is_cancelled(service: str) -> None:
    with grpc.insecure_channel(service) as channel:
        stub = beam_job_api_pb2_grpc.JobServiceStub(channel)
        idle = stub.Prepare(beam_job_api_pb2.PrepareJobRequest(job_name="job", pipeline=graph())).preparation_id
        cancelled = stub.Cancel(beam_job_api_pb2.CancelJobRequest(job_id=idle))
        assert cancelled.state == beam_job_api_pb2.JobState.CANCELLED
        job = stub.Prepare(beam_job_api_pb2.PrepareJobRequest(job_name="job", pipeline=graph())).preparation_id
        stub.Run(beam_job_api_pb2.RunJobRequest(preparation_id=job))
        stub.Run(beam_job_api_pb2.RunJobRequest(preparation_id=job))  # It is the same.
        told = list(stub.GetMessageStream(beam_job_api_pb2.JobMessagesRequest(job_id=job), timeout=120))
    assert told[-1].state_response.state == beam_job_api_pb2.JobState.FAILED
    (error,) = [
        one.message_response.message_text
        for one in told
        if one.message_response.importance == beam_job_api_pb2.JobMessage.JOB_MESSAGE_ERROR
    ]
    assert error.startswith("transforms.errors.BroetchenError: no workers answer at 127.0.0.1:")


def test_hosts_that_do_not_answer_are_left_out() -> None:
    said: list[str] = []
    with pool_at(2) as first, pool_at(1) as second:
        missing = free_address()
        hosts = Hosts([Host(address, "j", pytest.fail) for address in (first, missing, second)], said.append)
        assert hosts.workers == 3
        assert said == [f"{missing}: no workers answer there, and the job goes without them"]
        assert [next(hosts._turns).address for _ in range(4)] == [first, second, first, first]
    with pytest.raises(BroetchenError, match="no workers answer at"):
        Hosts([Host(missing, "j", pytest.fail)], said.append)


def test_a_host_with_another_beam_is_refused() -> None:
    server, address = new_server(), free_address()
    serve_calls(server, {"look": lambda _: {"processes": 1, "beam": "2.60.0\n", "workers": {}}})
    started_server(server, address)
    try:
        with pytest.raises(BroetchenError, match=rf"{address} has Beam 2\.60\.0, and the job service"):
            Hosts([Host(address, "j", pytest.fail)], pytest.fail)
    finally:
        server.stop(0)


@pytest.mark.slow
def test_a_worker_ends_with_its_job_and_leaves_no_defunct_process() -> None:
    """It waits for a job that is not there; one that Beam's own runner asks for is ended as it asks."""
    own = psutil.Process()
    before = {child.pid for child in own.children(recursive=True)}
    with pool_at(1) as address, new_channel(address) as channel:
        nobody = free_address()
        for job in ("one", "two"):
            call(channel, "start", job=job, worker="worker_0", control=nobody, logging=nobody, options="{}")
        beams = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
        request = beam_fn_api_pb2.StartWorkerRequest(worker_id="worker_0")
        request.control_endpoint.url = request.logging_endpoint.url = nobody
        assert beams.StartWorker(request).error == ""
        children = [child for child in own.children(recursive=True) if child.pid not in before]
        assert len(children) == 3
        end_job([address, free_address()], "one")
        assert call(channel, "look", job="one")["workers"] == {}
        assert call(channel, "look", job="two")["workers"]["worker_0"]["code"] is None
        beams.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="worker_0"))
        end_job([address], "two")
    assert not [child for child in children if child.is_running()]


@pytest.mark.slow
def test_a_worker_that_cannot_begin_says_why() -> None:
    with pool_at(1) as address, new_channel(address) as channel:
        call(channel, "start", job="j", worker="w", control="", logging=address, options="no json")
        deadline = time.monotonic() + 60
        while (state := call(channel, "look", job="j")["workers"]["w"])["code"] is None:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert state["code"] == 1
        assert "JSONDecodeError" in state["said"]


class Provides(beam_provision_api_pb2_grpc.ProvisionServiceServicer):
    """The service by which Flink and Prism tell workers their options."""

    def GetProvisionInfo(self, request: Any, context: Any) -> Any:
        assert dict(context.invocation_metadata())["worker_id"] == "1-1"
        info = beam_provision_api_pb2.ProvisionInfo()
        info.pipeline_options.update({"beam:option:pickle_library:v1": "dill"})
        return beam_provision_api_pb2.GetProvisionInfoResponse(info=info)


@contextlib.contextmanager
def provider() -> Iterator[str]:
    address, server = free_address(), new_server()
    beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(Provides(), server)
    started_server(server, address)
    yield address
    server.stop(0)


@pytest.mark.parametrize("provided", [True, False])
def test_workers_of_other_runners_have_the_options_of_the_pipeline(provided: bool) -> None:
    own = psutil.Process()
    before = {child.pid for child in own.children()}
    with pool_at(1) as address, provider() as provides, new_channel(address) as channel:
        request = beam_fn_api_pb2.StartWorkerRequest(worker_id="1-1")
        # A pool is no such service.
        request.provision_endpoint.url = provides if provided else address
        request.control_endpoint.url = request.logging_endpoint.url = free_address()
        assert beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel).StartWorker(request).error == ""
        (made,) = [child for child in own.children() if child.pid not in before]
        deadline = time.monotonic() + 30
        while made.environ().get("WORKER_ID") != "1-1":  # until the fork is that program
            assert time.monotonic() < deadline
        expected = {"beam:option:pickle_library:v1": "dill"} if provided else {}
        assert json.loads(made.environ()["PIPELINE_OPTIONS"]) == expected


def test_a_runner_that_does_not_say_the_options_is_told_why_no_worker_starts() -> None:
    with pool_at(1) as address, new_channel(address) as channel:
        nobody = free_address()
        request = beam_fn_api_pb2.StartWorkerRequest(worker_id="1-1")
        request.provision_endpoint.url = request.control_endpoint.url = request.logging_endpoint.url = nobody
        error = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel).StartWorker(request).error
    assert error.startswith(f"the runner does not say at {nobody} with which options the worker is to start (")
    assert error.endswith("; check that this host reaches it there")


def test_what_a_cluster_starts_ends_with_it() -> None:
    """It ends even where the cluster is killed: the system closes the pipe that it reads."""
    program = "import time; from beam_pipelines.cluster.family import start_module; "
    program += "made = start_module('tests.support.hosts.ending'); print(made.pid, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT) as maker:
        assert maker.stdout is not None
        made = psutil.Process(int(maker.stdout.readline()))
        assert made.is_running()
        maker.kill()
    psutil.wait_procs([made], timeout=30)
    assert not made.is_running() or made.status() == psutil.STATUS_ZOMBIE


def test_the_variables_of_a_started_process() -> None:
    with start_module("tests.support.hosts.ending", {"WORKER_ID": "w"}) as made:
        deadline = time.monotonic() + 30
        while psutil.Process(made.pid).environ().get("WORKER_ID") != "w":  # until the fork is that program
            assert time.monotonic() < deadline
        assert made.stdin is not None
        made.stdin.close()
        assert made.wait(30) == 1
