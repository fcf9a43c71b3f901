"""The meaning of services' errors: of instances of the clients' classes, and of errors that clients do raise."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import apache_beam as beam
import google.api_core.exceptions as api
import google.auth
import google.auth.exceptions as auth
import grpc  # type: ignore[import-untyped]
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.dataflow.dataflow_runner import DataflowRuntimeException
from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient, DataflowJobAlreadyExistsError
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.portability.stager import Stager
from apache_beam.utils import processes

from beam_pipelines.runners.failures import plain_errors
from beam_pipelines.runners.service_errors import DATAFLOW, LOCAL, PORTABLE, in_words, worker_died
from tests.support.services.job_service import job_service
from tests.support.services.refusing_service import answering
from transforms.errors import BroetchenError, UsageError, last_line

__all__ = ["job_service"]

AGAIN = "run the same command again to go on: finished shards are not redone"
CONSOLE = "its page in the console has the logs of its workers"
SIGN_IN = "sign in by gcloud auth application-default login, or name a key file by GOOGLE_APPLICATION_CREDENTIALS"


def dataflow_job(state: str, error: str | None) -> Exception:
    """As `DataflowPipelineResult.wait_until_finish` puts it."""
    return DataflowRuntimeException(f"Dataflow pipeline failed. State: {state}, Error:\n{error}", None)


def portable_job(state: str, error: str) -> Exception:
    """As `portable_runner.PipelineResult` puts it."""
    return RuntimeError(f"Pipeline job-1 failed in state {state}: {error}")


WORDS: dict[str, tuple[Exception, str, str]] = {
    "no permission": (
        api.Forbidden("POST https://storage.googleapis.com/upload/storage/v1/b/corpus/o: a@b may not create objects"),
        DATAFLOW,
        "Google Cloud answers HTTP 403, Forbidden (POST https://storage.googleapis.com/upload/storage/v1/b/corpus/o: "
        "a@b "
        "may not create objects); get permission for it: the account that starts a job takes the roles "
        "roles/dataflow.developer and roles/storage.objectAdmin",
    ),
    "API is off": (
        api.Forbidden("Dataflow API has not been used in project 1 before or it is disabled."),
        DATAFLOW,
        "Google Cloud answers HTTP 403, Forbidden (Dataflow API has not been used in project 1 before or it is "
        "disabled.); "
        "switch the API on, by gcloud services enable dataflow.googleapis.com, and wait some minutes",
    ),
    "no billing": (
        api.Forbidden("This API method requires billing to be enabled."),
        DATAFLOW,
        "Google Cloud answers HTTP 403, Forbidden (This API method requires billing to be enabled.); check the "
        "billing of --project",
    ),
    "too many requests": (
        api.TooManyRequests("Quota exceeded for quota metric 'Create requests'"),
        DATAFLOW,
        "Google Cloud answers HTTP 429, Too Many Requests (Quota exceeded for quota metric 'Create requests'); wait "
        "some "
        f"minutes, or ask for a higher quota, and {AGAIN}",
    ),
    "not signed in": (
        api.Unauthenticated("Request had invalid authentication credentials."),
        DATAFLOW,
        f"Google Cloud answers HTTP 401, Unauthorized (Request had invalid authentication credentials.); {SIGN_IN}",
    ),
    "bad value": (
        api.InvalidArgument("The machine type n9 is not known."),
        DATAFLOW,
        "Google Cloud answers HTTP 400, Bad Request (The machine type n9 is not known.); check the values of the job's "
        "options: --region, --machine_type, --job_name and others",
    ),
    "no such thing": (
        api.NotFound("The specified bucket does not exist."),
        DATAFLOW,
        "Google Cloud answers HTTP 404, Not Found (The specified bucket does not exist.); check --project, --region, "
        "and the "
        "buckets of --output and --temp_location",
    ),
    "busy": (
        api.ServiceUnavailable("try later"),
        DATAFLOW,
        "Google Cloud answers HTTP 503, Service Unavailable (try later); the service has a problem: wait a while, and "
        f"{AGAIN}",
    ),
    "busy for long": (
        api.RetryError("Timeout of 60.0s exceeded", cause=api.ServiceUnavailable("try later")),
        DATAFLOW,
        "Google Cloud answers HTTP 503, Service Unavailable (Timeout of 60.0s exceeded, last exception: 503 try "
        "later); the "
        f"service has a problem: wait a while, and {AGAIN}",
    ),
    "expired": (
        auth.RefreshError("Reauthentication is needed."),
        DATAFLOW,
        f"Google Cloud does not take these credentials any more (Reauthentication is needed.); {SIGN_IN}",
    ),
    "no way to sign in": (
        auth.TransportError("Failed to resolve 'oauth2.googleapis.com'"),
        DATAFLOW,
        "Google Cloud's sign-in cannot be reached (Failed to resolve 'oauth2.googleapis.com'); check the network, and "
        "try it "
        "again",
    ),
    "job exists": (
        DataflowJobAlreadyExistsError(
            "There is already active job named broetchen-1 with id: 2026-1_2. If you want to submit a second job, try "
            "again by setting a different name using --job_name."
        ),
        DATAFLOW,
        "a Dataflow job of the name broetchen-1 runs already, with the id 2026-1_2; wait for its end, or cancel it by "
        "gcloud "
        "dataflow jobs cancel 2026-1_2 --region=REGION",
    ),
    "job exists, says the service": (
        api.AlreadyExists(
            "The workflow could not be created. Causes: There is already an active job named broetchen-1."
        ),
        DATAFLOW,
        "a Dataflow job of the name broetchen-1 runs already; wait for its end, or cancel it by gcloud dataflow jobs "
        "cancel "
        "ID --region=REGION",
    ),
    "failed without a reason": (
        dataflow_job("FAILED", None),
        DATAFLOW,
        f"the Dataflow job failed, and the service gives no reason; {CONSOLE}. Then {AGAIN}",
    ),
    "cancelled in the console": (
        dataflow_job("CANCELLED", None),
        DATAFLOW,
        f"the Dataflow job was cancelled, in the console or by gcloud; {AGAIN}",
    ),
    "drained": (
        dataflow_job("DRAINED", None),
        DATAFLOW,
        f"the Dataflow job ended as DRAINED, which somebody asked for elsewhere; {AGAIN}",
    ),
    "failed": (
        dataflow_job(
            "FAILED", "Traceback (most recent call last):\n  File …\nKeyError: 'a' [while running 'Build/Plan']\n"
        ),
        DATAFLOW,
        f"the Dataflow job failed: KeyError: 'a'; {CONSOLE}. Then {AGAIN}",
    ),
    "workers died on Dataflow": (
        dataflow_job(
            "FAILED", "The job failed because a work item has failed 4 times. The worker lost contact with the service."
        ),
        DATAFLOW,
        "a worker process died; if it was for lack of memory, take machines with more of it, by "
        "--machine_type=n2-highmem-4. Run the same command again to go on: finished shards are not redone",
    ),
    "quota": (
        dataflow_job("FAILED", "Startup of the worker pool failed: QUOTA_EXCEEDED: Quota 'CPUS' exceeded."),
        DATAFLOW,
        "the project's quota does not allow the machines; ask for more, lower --max_num_workers, or take another "
        "--region "
        "(Startup of the worker pool failed: QUOTA_EXCEEDED: Quota 'CPUS' exceeded.)",
    ),
    "quota, as it is found before the start": (
        dataflow_job(
            "FAILED", "Workflow failed. Causes: Project p has insufficient quota(s) to execute this workflow."
        ),
        DATAFLOW,
        "the project's quota does not allow the machines; ask for more, lower --max_num_workers, or take another "
        "--region (Workflow failed. Causes: Project p has insufficient quota(s) to execute this workflow.)",
    ),
    "quota, by Compute Engine's name": (
        dataflow_job(
            "FAILED", "Workflow failed. Causes: Exceeded limit 'QUOTA_FOR_INSTANCES' on resource 'x'. Limit: 8"
        ),
        DATAFLOW,
        "the project's quota does not allow the machines; ask for more, lower --max_num_workers, or take another "
        "--region (Workflow failed. Causes: Exceeded limit 'QUOTA_FOR_INSTANCES' on resource 'x'. Limit: 8)",
    ),
    "no machines": (
        dataflow_job("FAILED", "ZONE_RESOURCE_POOL_EXHAUSTED: The zone does not have enough resources."),
        DATAFLOW,
        "there are no such machines free now; take another --region or --machine_type, or try it again later "
        "(ZONE_RESOURCE_POOL_EXHAUSTED: The zone does not have enough resources.)",
    ),
    "no packages": (
        dataflow_job("FAILED", "PIP failed to install dependencies, got exit status 1."),
        DATAFLOW,
        "the workers could not install their packages; without public addresses they need a NAT, or a worker image "
        "(docs/dataflow.md) (PIP failed to install dependencies, got exit status 1.)",
    ),
    "full disk": (
        dataflow_job("FAILED", "OSError: [Errno 28] No space left on device"),
        DATAFLOW,
        "the disk of a worker is full; give it a larger one (on Dataflow by --disk_size_gb), or lower "
        "shards.target_size "
        "(OSError: [Errno 28] No space left on device)",
    ),
    "no image": (
        dataflow_job("FAILED", "Error: failed to pull image europe-docker.pkg.dev/p/r/b: manifest unknown"),
        DATAFLOW,
        "the worker image cannot be fetched; check --sdk_container_image, and that the workers' account may read it "
        "(Error: "
        "failed to pull image europe-docker.pkg.dev/p/r/b: manifest unknown)",
    ),
    "not cancelled": (
        DataflowRuntimeException("Failed to cancel job 1, please go to the Developers Console.", None),
        DATAFLOW,
        "Dataflow did not do what was asked of the job; see on its page in the console whether it goes on, and cancel "
        "it there (Failed to cancel job 1, please go to the Developers Console.)",
    ),
    "portable job without a reason": (
        RuntimeError("Pipeline failed."),
        PORTABLE,
        f"the job of this command ended as FAILED, and its job service gives no reason; see its log there. Then "
        f"{AGAIN}",
    ),
    "portable job lost its worker": (
        portable_job("FAILED", "java.io.IOException: Channel closed prematurely"),
        PORTABLE,
        "a worker process died; if it was for lack of memory, give the machines of its workers more of it, or each of "
        "them "
        "fewer workers. Run the same command again to go on: finished shards are not redone",
    ),
    "portable job": (
        portable_job("FAILED", "java.lang.Exception: it\n\tat org.apache.beam\nCaused by: no slots\n"),
        PORTABLE,
        f"the job job-1 ended as FAILED: Caused by: no slots; the log of its job service has more. Then {AGAIN}",
    ),
    "gRPC of another process": (
        RuntimeError(
            "Traceback …\n<_MultiThreadedRendezvous of RPC that terminated with:\n\tstatus = StatusCode.UNAVAILABLE\n"
            '\tdetails = "Socket closed"\n\tdebug_error_string = "UNAVAILABLE:Socket closed"\n>'
        ),
        PORTABLE,
        "the job service answers UNAVAILABLE (Socket closed); check that it runs at --job_endpoint, and whether a "
        "job of yours goes on there before you start it again",
    ),
    "no Java": (
        RuntimeError("Java must be installed on this system to use this transform/runner."),
        PORTABLE,
        "this runner starts a job service in Java, which is not here; install Java 17, set JAVA_HOME, or give "
        "--job_endpoint",
    ),
    "own job service": (
        RuntimeError("Service failed to start up with error 1"),
        PORTABLE,
        "the runner's own job service does not start; --debug shows what it says, and --job_endpoint takes one that "
        "runs "
        "(Service failed to start up with error 1)",
    ),
}


@pytest.mark.parametrize("case", WORDS)
def test_words(case: str) -> None:
    error, place, words = WORDS[case]
    assert str(in_words(error, place)) == words


@pytest.mark.parametrize("place", [LOCAL, DATAFLOW, PORTABLE])
def test_advice_on_dead_workers_fits_the_runner(place: str) -> None:
    advice = {LOCAL: "--direct_num_workers", DATAFLOW: "--machine_type", PORTABLE: "the machines of its workers"}
    said = str(worker_died(place))
    assert [key for key, words in advice.items() if words in said] == [place]
    runner = {LOCAL: None, DATAFLOW: "DataflowRunner", PORTABLE: "FlinkRunner"}[place]
    with pytest.raises(BroetchenError) as failed, plain_errors(runner):
        raise RuntimeError("java.io.IOException: Channel closed prematurely")
    assert str(failed.value) == said


def test_what_is_no_services_error_stays_one() -> None:
    for place in (LOCAL, DATAFLOW, PORTABLE):
        assert in_words(KeyError("quotas"), place) is None
    # On this machine, the words of a program of the user's mean what they mean.
    assert in_words(RuntimeError("out of memory; quota; No space left on device"), LOCAL) is None


def test_a_last_line_is_one_that_says_something() -> None:
    assert last_line("a\n>\n") == "a"
    assert last_line(" \n>") == ""
    assert len(last_line("x" * 10_000)) == 300


# --- Raised by real clients -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("gcs_bucket")
@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (403, "(1f): Could not create workflow; user does not have write access to project: p", r"roles/dataflow\.dev"),
        (
            429,
            "Quota exceeded for quota metric 'Create requests'",
            "HTTP 429, Too Many Requests .*ask for a higher quota",
        ),
        (
            409,
            "(1f): There is already an active job named broetchen-1.",
            "a Dataflow job of the name broetchen-1 runs already",
        ),
        (404, "No such project", "HTTP 404, Not Found .*check --project, --region"),
        (400, "The machine type is unknown", "HTTP 400, Bad Request .*--machine_type"),
        (401, "Invalid credentials", "HTTP 401, Unauthorized .*gcloud auth application-default login"),
    ],
)
def test_beams_client_of_dataflow(status: int, message: str, words: str) -> None:
    with answering(status, message) as endpoint:
        options = ["--runner=DataflowRunner", "--project=p", "--region=europe-west4", f"--dataflow_endpoint={endpoint}"]
        client = DataflowApplicationClient(PipelineOptions([*options, "--temp_location=gs://b/t"]), "gs://b/t")
        with pytest.raises(BroetchenError, match=words) as failed, plain_errors("DataflowRunner"):
            client.modify_job_state("job", "JOB_STATE_CANCELLED")
        assert message.rstrip(".") in str(failed.value) or status == 409


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/nonexistent")
    with (
        pytest.raises(UsageError, match=rf"^there are no credentials for Google Cloud here; {SIGN_IN}$"),
        plain_errors(),
    ):
        google_auth_default()


def google_auth_default() -> None:

    google.auth.default()


def grpc_service(handlers: Callable[[grpc.Server], None] = lambda server: None) -> tuple[grpc.Server, str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    handlers(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


def test_what_answers_is_no_job_service() -> None:
    server, address = grpc_service()
    try:
        stub = beam_job_api_pb2_grpc.JobServiceStub(grpc.insecure_channel(address))
        with pytest.raises(BroetchenError, match=r"UNIMPLEMENTED .*is no job service of"), plain_errors("FlinkRunner"):
            stub.GetJobs(beam_job_api_pb2.GetJobsRequest())
    finally:
        server.stop(0)


def test_a_job_service_is_gone() -> None:
    server, address = grpc_service()
    server.stop(0).wait()
    stub = beam_job_api_pb2_grpc.JobServiceStub(grpc.insecure_channel(address))
    with pytest.raises(BroetchenError, match=r"UNAVAILABLE .*before you start it again$"), plain_errors("FlinkRunner"):
        stub.GetJobs(beam_job_api_pb2.GetJobsRequest())
    with pytest.raises(BroetchenError, match=r"^nobody answers at --job_endpoint; "), plain_errors("FlinkRunner"):
        grpc.channel_ready_future(grpc.insecure_channel(address)).result(timeout=0.3)


def test_a_job_service_that_is_too_slow() -> None:
    class Slow(beam_job_api_pb2_grpc.JobServiceServicer):
        def GetJobs(self, request: object, context: grpc.ServicerContext) -> None:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    server, address = grpc_service(
        lambda server: beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(Slow(), server)
    )
    try:
        stub = beam_job_api_pb2_grpc.JobServiceStub(grpc.insecure_channel(address))
        with (
            pytest.raises(BroetchenError, match=r"DEADLINE_EXCEEDED .*raise --job_server_timeout"),
            plain_errors("Flink"),
        ):
            stub.GetJobs(beam_job_api_pb2.GetJobsRequest())
    finally:
        server.stop(0)


def test_a_portable_runner_without_an_endpoint() -> None:
    with pytest.raises(UsageError, match=r"--job_endpoint=HOST:PORT$"), plain_errors("PortableRunner"):
        PortableRunner().create_job_service(PipelineOptions([]))


def test_files_that_options_name_and_that_are_not_there(tmp_path: Path) -> None:
    for option in ("requirements_file", "setup_file", "extra_package"):
        options = PipelineOptions([f"--{option}=/nonexistent.tar.gz", "--requirements_cache=skip"])
        words = rf"^--{option}s? /nonexistent\.tar\.gz: there is no such file$"
        with pytest.raises(UsageError, match=words), plain_errors("DataflowRunner"):
            Stager.create_job_resources(options, str(tmp_path))


def test_a_program_of_beams_that_fails() -> None:
    program = "import sys; print('no such package'); sys.exit(1)"
    words = r"^a program that Beam started has failed \(.*no such package.*\); --debug shows how it was called$"
    with pytest.raises(BroetchenError, match=words), plain_errors("DataflowRunner"):
        processes.check_output([sys.executable, "-c", program], stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_a_portable_job_service(job_service: str) -> None:
    """Beam's own: a step that fails, an unknown kind of workers, workers by docker, and a job that is cancelled."""

    def run(step: Callable[[int], int], *options: str) -> None:
        given = PipelineOptions(["--runner=PortableRunner", f"--job_endpoint={job_service}", *options])
        with plain_errors("PortableRunner"), beam.Pipeline(options=given) as pipeline:
            _ = pipeline | beam.Create([1]) | beam.Map(step)

    with pytest.raises(BroetchenError, match=r"^the job \S+ ended as FAILED: ValueError: boom; the log of"):
        run(boom, "--environment_type=LOOPBACK")
    with pytest.raises(UsageError, match=r"^--environment_type NOTHING: Beam has no such type of workers"):
        run(boom, "--environment_type=NOTHING")
    with pytest.raises(BroetchenError, match=r"^the job service cannot start workers by docker; .*LOOPBACK"):
        run(boom, "--environment_type=DOCKER", "--environment_config=no/such:image")
    threading.Thread(target=cancel_running, args=[job_service], daemon=True).start()
    with pytest.raises(BroetchenError, match=rf"^the job \S+ was cancelled at its job service; {re.escape(AGAIN)}$"):
        run(wait, "--environment_type=LOOPBACK")


def boom(_: int) -> int:
    raise ValueError("boom")


def wait(number: int) -> int:
    threading.Event().wait(20)
    return number


def cancel_running(address: str) -> None:
    """Cancels the first job that runs."""
    stub = beam_job_api_pb2_grpc.JobServiceStub(grpc.insecure_channel(address))
    while True:
        for job in stub.GetJobs(beam_job_api_pb2.GetJobsRequest()).job_info:
            if job.state == beam_job_api_pb2.JobState.RUNNING:
                stub.Cancel(beam_job_api_pb2.CancelJobRequest(job_id=job.job_id))
                return
        time.sleep(0.2)
