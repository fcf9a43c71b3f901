"""The names and the options of jobs that a service runs."""

from __future__ import annotations

import re

import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, PortableOptions

from beam_pipelines.runners.remote.run import describe_job, remote_defaults, remote_runner

ON_DATAFLOW = ["--runner=DataflowRunner"]
PORTABLE = ["--runner=PortableRunner", "--job_endpoint=127.0.0.1:8099"]
VALID_ON_DATAFLOW = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
WEEK_S = 7 * 86400


def name_of(arguments: list[str], output: str | None) -> str:
    name = PipelineOptions([*remote_defaults(arguments, output), *arguments]).view_as(GoogleCloudOptions).job_name
    assert re.fullmatch(VALID_ON_DATAFLOW, name)
    return name


def test_on_dataflow_the_jobs_of_an_output_have_one_name() -> None:
    assert name_of(ON_DATAFLOW, "gs://b/out") == name_of(ON_DATAFLOW, "gs://b/out")
    assert name_of(ON_DATAFLOW, "gs://b/out") != name_of(ON_DATAFLOW, "gs://b/out2")
    assert re.fullmatch(r"broetchen-[0-9a-f]{20}", name_of(ON_DATAFLOW, "gs://b/out"))


def test_elsewhere_each_job_has_a_name_of_its_own() -> None:
    assert name_of(PORTABLE, "out") != name_of(PORTABLE, "out")
    assert name_of(ON_DATAFLOW, None) != name_of(ON_DATAFLOW, None)


@pytest.mark.parametrize("runner", [ON_DATAFLOW, PORTABLE])
@pytest.mark.parametrize("given", [["--job_name=mine"], ["--job_name", "mine"]])
def test_a_given_name_is_the_last_word(runner: list[str], given: list[str]) -> None:
    assert name_of([*runner, *given], "gs://b/out") == "mine"


def timeout_of(arguments: list[str]) -> int:
    options = PipelineOptions([*remote_defaults(arguments, "out"), *arguments])
    timeout: int = options.view_as(PortableOptions).job_server_timeout
    return timeout


def test_the_connection_to_a_job_lasts_for_weeks() -> None:
    assert timeout_of(PORTABLE) >= 4 * WEEK_S
    assert timeout_of(["--runner=FlinkRunner"]) >= 4 * WEEK_S


@pytest.mark.parametrize(
    "given", [["--job_server_timeout=7"], ["--job-server-timeout=7"], ["--job_server_timeout", "7"]]
)
def test_a_given_timeout_is_the_last_word(given: list[str]) -> None:
    assert timeout_of([*PORTABLE, *given]) == 7


@pytest.mark.parametrize("arguments", [[], ["--runner=direct"], ["--runner=PortableRunner", "--job_endpoint=embed"]])
def test_a_job_of_this_process_is_no_remote_job(arguments: list[str]) -> None:
    assert remote_runner(arguments) is None
    assert remote_defaults(arguments, "out") == []


@pytest.mark.parametrize("arguments", [["--runner=dataflow"], ["--runner", "portable"], ["--runner=FlinkRunner"]])
def test_a_runner_that_hands_the_job_to_a_service_is_known_by_any_of_its_names(arguments: list[str]) -> None:
    assert remote_runner(arguments) in ("DataflowRunner", "PortableRunner", "FlinkRunner")


def test_the_job_is_described_as_its_service_knows_it() -> None:
    options = [*ON_DATAFLOW, "--project=p", "--region=r", "--job_name=n"]
    job = describe_job("DataflowRunner", PipelineOptions(options), "b")
    assert (job.project, job.region, job.name, job.build) == ("p", "r", "n", "b")
    assert job.endpoint == "https://dataflow.googleapis.com"
    job = describe_job("PortableRunner", PipelineOptions([*PORTABLE, "--job_name=n"]), "b")
    assert (job.endpoint, job.name, job.project) == ("127.0.0.1:8099", "n", "")
