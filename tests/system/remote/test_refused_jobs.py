"""The message of a build that its service refuses or ends: a line or two, and none of the job's options."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import pytest

from tests.support.command import run_command
from tests.support.services.dataflow_service import DataflowService, dataflow, mix_in_bucket
from tests.support.services.refusing_service import answering

__all__ = ["dataflow"]


@pytest.fixture
def remote_config(gcs_prefix: str) -> str:
    """A mix of one dataset, with its source and its tokenizer in the bucket."""
    return mix_in_bucket(gcs_prefix)


def build_while(meanwhile: Callable[[], None], config: str, output: str, options: list[str]) -> str:
    """The standard error of a build that fails."""
    thread = threading.Thread(target=meanwhile, daemon=True)
    thread.start()
    done = run_command("build", config, "--output", output, "--quiet", *options)
    thread.join()
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert_no_options(done.stderr)
    return done.stderr


def assert_no_options(said: str) -> None:
    assert len(said.splitlines()) < 12, said
    for word in ("pipeline_options", "sdkPipelineOptions", "temp_location", "client_request_id", "Traceback"):
        assert word not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("state", "words"),
    [
        (
            "JOB_STATE_CANCELLED",
            r"the Dataflow job was cancelled, in the console or by gcloud; run the same command again",
        ),
        ("JOB_STATE_DRAINED", r"the Dataflow job ended as DRAINED, which somebody asked for elsewhere; run the same"),
    ],
)
def test_a_job_that_is_ended_in_the_console(
    remote_config: str, gcs_prefix: str, dataflow: DataflowService, state: str, words: str
) -> None:
    def end() -> None:
        assert dataflow.created.wait(300)
        dataflow.end(state)

    said = build_while(end, remote_config, f"{gcs_prefix}/out", dataflow.options())
    assert re.search(rf"^broetchen: {words}", said, re.MULTILINE), said
    # The job's id and page are shown.
    (job,) = dataflow.jobs
    assert f"Created job with id: [{job}]" in said
    assert re.search(rf"monitoring console, please navigate to https://\S+/{job}\?project=broetchen-tests", said)


QUOTA = (
    "Startup of the worker pool in zone europe-west4-a failed to bring up any of the desired 1 workers. "
    "QUOTA_EXCEEDED: Instance 'w-1' creation failed: Quota 'CPUS' exceeded.  Limit: 8.0 in region europe-west4."
)
# As Dataflow hands on what a worker has raised, four times over, and then what became of the job.
FAILED_STEP = """Error message from worker: generic::unknown: Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1501, in apache_beam.runners.common.DoFnRunner.process
{} [while running 'Build/Tokenize-ptransform-12']
"""
FAILED_JOB = "Workflow failed. Causes: S05:Build/Tokenize failed. The work item was attempted on these workers: w-1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("messages", "words"),
    [
        pytest.param(
            [QUOTA],
            "the project's quota does not allow the machines; ask for more, lower --max_num_workers, or take another "
            "--region (Startup of the worker pool",
            id="quota",
        ),
        pytest.param(
            [FAILED_STEP.format("transforms.errors.BroetchenError: gs://b/a.parquet: cut short"), FAILED_JOB],
            "gs://b/a.parquet: cut short",
            id="an error of ours",
        ),
        pytest.param(
            [FAILED_STEP.format("ValueError: \x1b[31mred\x07")] * 4 + [FAILED_JOB],
            "the Dataflow job failed: ValueError: ?[31mred?; its page in the console has the logs of its workers. Then",
            id="an error of a library",
        ),
        pytest.param(
            [], "the Dataflow job failed, and the service gives no reason; its page in the console", id="none"
        ),
    ],
)
def test_a_job_that_fails(
    remote_config: str, gcs_prefix: str, dataflow: DataflowService, messages: list[str], words: str
) -> None:
    def end() -> None:
        assert dataflow.created.wait(300)
        dataflow.end("JOB_STATE_FAILED", *messages)

    said = build_while(end, remote_config, f"{gcs_prefix}/out", dataflow.options())
    assert said.splitlines()[-1].startswith(f"broetchen: {words}"), said
    assert not set("\x1b\x07") & set(said)


@pytest.mark.slow
def test_a_service_that_has_too_much_to_do(remote_config: str, gcs_prefix: str, dataflow: DataflowService) -> None:
    with answering(429, "Quota exceeded for quota metric 'Create requests' of service 'dataflow'") as endpoint:
        options = [*dataflow.options(), f"--dataflow_endpoint={endpoint}"]
        said = build_while(lambda: None, remote_config, f"{gcs_prefix}/out", options)
    last = said.splitlines()[-1]
    assert last.startswith("broetchen: Google Cloud answers HTTP 429, Too Many Requests (")
    assert "Quota exceeded for quota metric 'Create requests'" in last
    assert "); wait some minutes, or ask for a higher quota, and run the same command again" in last


@pytest.mark.slow
def test_a_service_that_refuses_the_job(remote_config: str, gcs_prefix: str, dataflow: DataflowService) -> None:
    with answering(403, "(1f): Could not create workflow; user does not have write access to project: p") as endpoint:
        options = [*dataflow.options(), f"--dataflow_endpoint={endpoint}"]
        said = build_while(lambda: None, remote_config, f"{gcs_prefix}/out", options)
    assert said.splitlines()[-1] == (
        "broetchen: Google Cloud answers HTTP 403, Forbidden (POST "
        f"{endpoint}/v1b3/projects/broetchen-tests/locations/europe-west4/jobs?… (1f): Could not create workflow; user "
        f"does "
        "not have write access to project: p); get permission for it: the account that starts a job takes the roles "
        "roles/dataflow.developer and roles/storage.objectAdmin"
    )


def test_a_bucket_for_staging_that_is_not_there(remote_config: str, gcs_prefix: str, dataflow: DataflowService) -> None:
    """Beam would try to write there for ten minutes, and say nothing."""
    for option in ("temp", "staging"):
        options = [*dataflow.options(), f"--{option}_location=gs://no-such-bucket/t"]
        for more in ((), ("--dry-run",)):
            done = run_command("build", remote_config, "--output", f"{gcs_prefix}/out", "--quiet", *options, *more)
            assert done.returncode == 1
            assert done.stderr == (
                f"broetchen: --{option}_location gs://no-such-bucket/t: cannot be written (HTTP 404 Not Found); check "
                f"the "
                "path, and that the bucket exists\n"
            )
