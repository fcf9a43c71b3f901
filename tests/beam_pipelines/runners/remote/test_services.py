"""A service's answer about a job that a lock names, and the questions that it may not be asked."""

from __future__ import annotations

import dataclasses
import socket
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

import beam_pipelines.runners.remote.services
from beam_pipelines.runners.remote.services import asked_with, check_endpoint, dataflow_of, read_counters, service_of
from tests.support.services.dataflow_service import DataflowService, dataflow
from tests.support.services.job_service import job_service
from transforms.errors import BroetchenError
from transforms.locks.held import CannotTellError
from transforms.locks.job import RemoteJob
from transforms.locks.owner import LockOwner, this_process

__all__ = ["dataflow", "job_service"]

NAME = "broetchen-1"


@pytest.fixture
def on_dataflow(dataflow: DataflowService, gcs_bucket: str) -> RemoteJob:
    """A job that runs there; the credentials are those of the emulated bucket."""
    assert gcs_bucket
    options = {"sdkPipelineOptions": {"options": {"pipelineUrl": ""}}}
    job = dataflow.create({"name": NAME, "clientRequestId": "1", "environment": options})
    return RemoteJob("DataflowRunner", dataflow.endpoint, "broetchen-tests", "europe-west4", NAME, job["id"])


def of(job: RemoteJob, /, **changes: Any) -> LockOwner:
    return dataclasses.replace(this_process(dataclasses.replace(job, **changes)), system="another boot")


@pytest.mark.parametrize("known", [True, False], ids=["by id", "by name"])
def test_dataflow_says_whether_a_job_has_ended(dataflow: DataflowService, on_dataflow: RemoteJob, known: bool) -> None:
    owner = of(on_dataflow) if known else of(on_dataflow, job="")
    goes_on = asked_with(dataflow.options())
    assert goes_on(owner)
    dataflow.end("JOB_STATE_CANCELLING")
    assert goes_on(owner)
    dataflow.end("JOB_STATE_FAILED")
    assert not goes_on(owner)


def test_dataflow_is_asked_to_cancel(dataflow: DataflowService, on_dataflow: RemoteJob) -> None:
    service = service_of(on_dataflow, dataflow.options())
    assert service.state(on_dataflow.job) == "RUNNING"
    service.cancel(on_dataflow.job)
    assert service.state(on_dataflow.job) == "CANCELLED"


def test_what_the_steps_of_a_job_count(dataflow: DataflowService, on_dataflow: RemoteJob) -> None:
    dataflow.counters[on_dataflow.job] = {("broetchen/a b", "tokens"): 7, ("broetchen/a b", "documents"): 2}
    assert read_counters(on_dataflow, dataflow.options()) == {"broetchen/a b": {"tokens": 7, "documents": 2}}
    dataflow.refuses = 503
    assert read_counters(on_dataflow, dataflow.options()) == {}
    assert read_counters(dataclasses.replace(on_dataflow, runner="PortableRunner"), dataflow.options()) == {}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([], ""),
        (["a", "b", "c"], "c"),
        (["a", "Traceback …\nb", "c", "d"], "Traceback …\nb"),
        (["a", "The work item was attempted on w-1"], "a"),
    ],
)
def test_the_best_of_the_last_errors_of_a_job(
    dataflow: DataflowService, on_dataflow: RemoteJob, said: list[str], reason: str
) -> None:
    for text in said:
        dataflow.say(on_dataflow.job, text, "ERROR")
        dataflow.say(on_dataflow.job, "Traceback of no error", "BASIC")
    assert dataflow_of(on_dataflow, dataflow.options()).last_error(on_dataflow.job) == reason


@pytest.mark.parametrize(("changes", "reason"), [({"job": "unknown"}, "HTTP 404"), ({}, "HTTP 403")])
def test_what_dataflow_does_not_answer_is_no_end(
    dataflow: DataflowService, on_dataflow: RemoteJob, changes: dict[str, str], reason: str
) -> None:
    dataflow.refuses = 403
    with pytest.raises(CannotTellError, match=f"does not say whether it has ended \\({reason}"):
        asked_with(dataflow.options())(of(on_dataflow, **changes))


def test_credentials_go_to_no_endpoint_that_only_a_lock_names(
    dataflow: DataflowService, on_dataflow: RemoteJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[DataflowService] = []
    monkeypatch.setattr(DataflowService, "active", asked.append)
    with pytest.raises(CannotTellError, match="its endpoint is not Google's: add --dataflow_endpoint=http://localhost"):
        asked_with(["--runner=DataflowRunner"])(of(on_dataflow, job=""))
    assert not asked


@pytest.mark.parametrize("changes", [{"project": "../p"}, {"region": ""}, {"job": "a/b"}, {"job": "", "name": ""}])
def test_names_that_dataflow_does_not_have_are_not_asked_for(
    dataflow: DataflowService, on_dataflow: RemoteJob, changes: dict[str, str]
) -> None:
    with pytest.raises(CannotTellError, match="does not say of which project, region and name it is"):
        asked_with(dataflow.options())(of(on_dataflow, **changes))


def on_job_service(endpoint: str, **changes: str) -> RemoteJob:
    return dataclasses.replace(RemoteJob("PortableRunner", endpoint, name=NAME), **changes)


@pytest.mark.slow
def test_a_job_service_says_whether_a_job_has_ended(job_service: str) -> None:
    options = PipelineOptions(
        [
            "--runner=PortableRunner",
            f"--job_endpoint={job_service}",
            "--environment_type=LOOPBACK",
            f"--job_name={NAME}",
        ]
    )
    pipeline = beam.Pipeline(options=options)
    _ = pipeline | beam.Create([1])
    result: Any = pipeline.run()
    job = on_job_service(job_service, job=result._job_id)
    assert service_of(job).unfinished("another name") == []
    result.wait_until_finish()
    assert service_of(job).state(job.job) == "DONE"
    assert not asked_with([])(this_process(job))
    # By its name, the lock says nothing of its id.
    assert not asked_with([])(this_process(on_job_service(job_service)))
    with pytest.raises(CannotTellError, match="does not say whether it has ended"):
        asked_with([])(this_process(on_job_service(job_service, job="unknown")))


def test_a_job_service_that_has_gone_says_nothing() -> None:
    for job in (on_job_service("127.0.0.1:9", job="1"), on_job_service("127.0.0.1:9")):
        with pytest.raises(CannotTellError, match=r"does not say whether it has ended \(UNAVAILABLE"):
            asked_with([])(this_process(job))


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (on_job_service(""), "the address of its service is not known"),
        (
            on_job_service("10.0.0.1:8099"),
            r"10\.0\.0\.1:8099 was not named to this command: add --runner=PortableRunner --job_endpoint=10",
        ),
        (on_job_service("localhost:8099"), "localhost:8099 is an address of another machine"),
    ],
)
def test_a_service_that_only_a_lock_names_is_not_asked(job: RemoteJob, reason: str) -> None:
    with pytest.raises(CannotTellError, match=reason):
        asked_with([])(of(job))


def test_what_listens_and_does_not_answer_is_no_job_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beam_pipelines.runners.remote.services, "_READY_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(BroetchenError, match=f"--job_endpoint {endpoint}: no job service answers there"):
            check_endpoint(["--runner=PortableRunner", "--job_endpoint", endpoint])


@pytest.mark.parametrize("arguments", [[], ["--job_endpoint=embed"]])
def test_where_no_service_is_named_none_is_looked_for(arguments: list[str]) -> None:
    check_endpoint(["--runner=PortableRunner", *arguments])
