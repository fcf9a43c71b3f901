"""The meaning of services' errors, of Dataflow, a portable job service and Google Cloud's APIs, with advice for each.

Their clients raise exceptions of many classes, and some only text: of an exception elsewhere, or of a gRPC call, whose
last line is ">". Each kind has one line here.
"""

from __future__ import annotations

import http
import re
import shlex
from collections.abc import Iterator

import google.api_core.exceptions
import google.auth.exceptions
import grpc  # type: ignore[import-untyped]

from transforms.errors import BroetchenError, UsageError, last_line

_AGAIN = "run the same command again to go on: finished shards are not redone"
_PAGE = "its page in the console has the logs of its workers"
_SIGN_IN = "sign in by gcloud auth application-default login, or name a key file by GOOGLE_APPLICATION_CREDENTIALS"

LOCAL, DATAFLOW, PORTABLE = "this machine", "Dataflow", "a job service"


def place_of(runner: str | None) -> str:
    """Where a runner's workers are: `LOCAL`, `DATAFLOW` or `PORTABLE`.

    >>> place_of("DataflowRunner"), place_of("FlinkRunner"), place_of(None)
    ('Dataflow', 'a job service', 'this machine')
    """
    if runner in (None, "DirectRunner", "FnApiRunner"):
        return LOCAL
    return DATAFLOW if runner == "DataflowRunner" else PORTABLE


_MORE_MEMORY = {
    LOCAL: "take fewer with --direct_num_workers",
    DATAFLOW: "take machines with more of it, by --machine_type=n2-highmem-4",
    PORTABLE: "give the machines of its workers more of it, or each of them fewer workers",
}


def worker_died(place: str = LOCAL) -> BroetchenError:
    """The error that stands for a worker's death."""
    return BroetchenError(
        f"a worker process died; if it was for lack of memory, {_MORE_MEMORY[place]}. Run the same "
        "command again to go on: finished shards are not redone"
    )


def in_words(error: BaseException, place: str = LOCAL) -> BroetchenError | None:
    """The meaning of a service's error; None where it is of no service that is known here.

    Args:
        error: as it was raised; its cause counts as well.
        place: where the job's workers are, see `place_of`.
    """
    for link in _chain(error):
        found = _of_class(link) or (_of_text(str(link), place) if _is_beams(link) else None)
        if found is not None:
            return found
    return None


def _is_beams(error: BaseException) -> bool:
    """Whether an exception may be one of Beam's runners, which describe an event by text alone."""
    own = type(error).__module__.startswith("apache_beam.")
    return own or isinstance(error, RuntimeError | ValueError | OSError | NotImplementedError)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


# --- By class ---------------------------------------------------------------------------------------------------------


def _of_class(error: BaseException) -> BroetchenError | None:
    match error:
        case google.auth.exceptions.DefaultCredentialsError():
            return UsageError(f"there are no credentials for Google Cloud here; {_SIGN_IN}")
        case google.auth.exceptions.RefreshError():
            return BroetchenError(
                f"Google Cloud does not take these credentials any more ({last_line(str(error))}); {_SIGN_IN}"
            )
        case google.auth.exceptions.TransportError():
            return BroetchenError(
                f"Google Cloud's sign-in cannot be reached ({last_line(str(error))}); check the network, and try it "
                f"again"
            )
        case google.api_core.exceptions.RetryError():
            return _of_status(http.HTTPStatus.SERVICE_UNAVAILABLE, last_line(str(error)))
        case google.api_core.exceptions.GoogleAPICallError() if error.code is not None:
            return _of_status(int(error.code), last_line(str(error.message)))
        case grpc.FutureTimeoutError():
            return BroetchenError(
                "nobody answers at --job_endpoint; check that the job service runs, and that its address can be "
                "reached from here"
            )
        case grpc.RpcError() if isinstance(error, grpc.Call):
            return _of_rpc(error.code().name, last_line(error.details() or ""))
    return None


_DISABLED = re.compile(r"has not been used in project|SERVICE_DISABLED|it is disabled", re.IGNORECASE)
_BILLING = re.compile(r"\bbilling\b", re.IGNORECASE)
_ACTIVE_JOB = re.compile(r"already (?:an )?active job named (\S+?)(?: with id: (\S+?))?[.\s]")


def _of_status(status: int, said: str) -> BroetchenError:
    """The answer of an API of Google Cloud's with an HTTP status, and its message."""
    active = _ACTIVE_JOB.search(f"{said} ")
    if active:
        return _job_exists(active[1], active[2])
    if status == http.HTTPStatus.FORBIDDEN and _DISABLED.search(said):
        advice = "switch the API on, by gcloud services enable dataflow.googleapis.com, and wait some minutes"
    elif status == http.HTTPStatus.FORBIDDEN and _BILLING.search(said):
        advice = "check the billing of --project"
    elif status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        advice = f"the service has a problem: wait a while, and {_AGAIN}"
    else:
        advice = _STATUS_ADVICE.get(status, "check --project, --region and the other options of the job")
    name = next((one.phrase for one in http.HTTPStatus if one == status), "no status that is known")
    return BroetchenError(f"Google Cloud answers HTTP {status}, {name} ({said}); {advice}")


_STATUS_ADVICE: dict[int, str] = {
    http.HTTPStatus.BAD_REQUEST: "check the values of the job's options: --region, --machine_type, --job_name and "
    "others",
    http.HTTPStatus.UNAUTHORIZED: _SIGN_IN,
    http.HTTPStatus.FORBIDDEN: "get permission for it: the account that starts a job takes the roles "
    "roles/dataflow.developer and roles/storage.objectAdmin",
    http.HTTPStatus.NOT_FOUND: "check --project, --region, and the buckets of --output and --temp_location",
    http.HTTPStatus.REQUEST_TIMEOUT: f"check the network, and {_AGAIN}",
    http.HTTPStatus.CONFLICT: "see what else writes there or runs under this name, and wait for its end",
    http.HTTPStatus.TOO_MANY_REQUESTS: f"wait some minutes, or ask for a higher quota, and {_AGAIN}",
}


def _job_exists(name: str, job: str | None) -> BroetchenError:
    return BroetchenError(
        f"a Dataflow job of the name {name} runs already{f', with the id {job}' if job else ''}; wait for its end, or "
        f"cancel it by gcloud dataflow jobs cancel {shlex.quote(job) if job else 'ID'} --region=REGION"
    )


def _of_rpc(status: str, said: str) -> BroetchenError:
    """A call of a job service that failed."""
    advice = _RPC_ADVICE.get(status, "see the log of the job service, and whether the job goes on there")
    return BroetchenError(f"the job service answers {status} ({said or 'no reason'}); {advice}")


_RPC_ADVICE = {
    "UNAVAILABLE": "check that it runs at --job_endpoint, and whether a job of yours goes on there before you start it "
    "again",
    "DEADLINE_EXCEEDED": "it was too slow: raise --job_server_timeout, and see whether the job goes on there before "
    "you start it again",
    "UNIMPLEMENTED": "what answers at --job_endpoint is no job service of this version of Beam's",
    "NOT_FOUND": "it does not know the job any more, as after a restart: run the same command again to go on",
    "UNAUTHENTICATED": "it takes no jobs from here without credentials",
    "PERMISSION_DENIED": "it takes no jobs from here",
    "RESOURCE_EXHAUSTED": "it has no room for the job: try it again later",
    "INVALID_ARGUMENT": "change what it names, and run the same command again",
}


# --- By text ----------------------------------------------------------------------------------------------------------

_RPC = re.compile(r"of RPC that terminated with:\s+status = StatusCode\.(\w+)\s+details = \"(.*?)\"\n", re.DOTALL)
_DATAFLOW_ENDED = re.compile(r"Dataflow pipeline failed\. State: (\w+), Error:\n(.*)", re.DOTALL)
_PORTABLE_ENDED = re.compile(r"Pipeline (\S+) failed in state (\w+): (.*)", re.DOTALL)
_NO_REASON = ("", "None", "unknown error")

# Patterns in the message of a job or a runner, and their meanings: the first pattern that is found counts.
_MEANINGS: tuple[tuple[str, type[BroetchenError], str], ...] = (
    (
        r"QUOTA_EXCEEDED|Quota '[^']*' exceeded|(?i:insufficient (?:\w+ )?quota)|Exceeded limit 'QUOTA_FOR_",
        BroetchenError,
        "the project's quota does not allow the machines; ask for more, lower --max_num_workers, or take another "
        "--region",
    ),
    (
        r"RESOURCE_POOL_EXHAUSTED|does not have enough resources",
        BroetchenError,
        "there are no such machines free now; take another --region or --machine_type, or try it again later",
    ),
    (
        r"(?i)pip failed to install|Pip install failed|failed to install (?:packages|dependencies)",
        BroetchenError,
        "the workers could not install their packages; without public addresses they need a NAT, or a worker image "
        "(docs/dataflow.md)",
    ),
    (
        r"No space left on device",
        BroetchenError,
        "the disk of a worker is full; give it a larger one (on Dataflow by --disk_size_gb), or lower "
        "shards.target_size",
    ),
    (
        r"(?i)image pull|ErrImagePull|failed to pull image|manifest unknown",
        BroetchenError,
        "the worker image cannot be fetched; check --sdk_container_image, and that the workers' account may read it",
    ),
    (
        r"Command '\['docker'|no such file or directory: '?docker|docker: not found",
        BroetchenError,
        "the job service cannot start workers by docker; check docker there, or give --environment_type=EXTERNAL (or "
        "LOOPBACK, for workers in this process) with --environment_config (docs/runners.md)",
    ),
    (
        r"Java (?:must be installed|is not correctly installed)",
        UsageError,
        "this runner starts a job service in Java, which is not here; install Java 17, set JAVA_HOME, or give "
        "--job_endpoint",
    ),
    (
        r"You must specify a --job_endpoint",
        UsageError,
        "--runner PortableRunner: give the address of its job service by --job_endpoint=HOST:PORT",
    ),
    (
        r"Service failed to start up with error",
        BroetchenError,
        "the runner's own job service does not start; --debug shows what it says, and --job_endpoint takes one that "
        "runs",
    ),
    (
        r"Failed to cancel job|Failed to get the Dataflow job id",
        BroetchenError,
        "Dataflow did not do what was asked of the job; see on its page in the console whether it goes on, and cancel "
        "it there",
    ),
)
_LOST_WORKER = re.compile(r"(?i)lost contact with the service|out of memory|\bOOM\b|Channel closed prematurely")
_MISSING_FILE = re.compile(r"The file (.+) cannot be found\. (?:It|Its location) was specified (?:in|by) the (--\w+)")
_ENVIRONMENT = re.compile(r"Unknown environment type: (\S+)")
_CHILD = re.compile(r"(?i)output (?:of the failed child process|from execution of subprocess):?\s*(.*)", re.DOTALL)


def _of_text(text: str, place: str) -> BroetchenError | None:
    if active := _ACTIVE_JOB.search(f"{text} "):
        return _job_exists(active[1], active[2])
    if ended := _DATAFLOW_ENDED.search(text):
        return of_dataflow_job(ended[1], ended[2].strip())
    if ended := _PORTABLE_ENDED.search(text):
        return _of_portable_job(*ended.groups(), place=place)
    if text == "Pipeline failed.":
        return _of_portable_job("of this command", "FAILED", "", place=place)
    if rpc := _RPC.search(text):
        return _of_rpc(rpc[1], last_line(rpc[2]))
    if missing := _MISSING_FILE.search(text):
        return UsageError(f"{missing[2]} {missing[1]}: there is no such file")
    if environment := _ENVIRONMENT.search(text):
        return UsageError(
            f"--environment_type {environment[1]}: Beam has no such type of workers; it has DOCKER, PROCESS, EXTERNAL "
            f"and "
            "LOOPBACK"
        )
    return _of_meaning(text, place) or _of_program(text)


def _of_meaning(text: str, place: str) -> BroetchenError | None:
    """The meaning of a text whose job is not on this machine; the same words elsewhere mean something else."""
    if "Traceback (most recent call last)" in text:
        text = last_line(text)  # The code above it has words of its own.
    if place != LOCAL and _LOST_WORKER.search(text):
        return worker_died(place)
    for pattern, kind, meaning in _MEANINGS:
        if (place != LOCAL or kind is UsageError) and re.search(pattern, text):
            return kind(meaning if kind is UsageError else f"{meaning} ({last_line(text)})")
    return None


def _of_program(text: str) -> BroetchenError | None:
    if child := _CHILD.search(text):
        return BroetchenError(
            f"a program that Beam started has failed ({last_line(child[1]) or 'no word of it'}); --debug shows how it "
            f"was "
            "called"
        )
    return None


def of_dataflow_job(state: str, said: str) -> BroetchenError:
    """The meaning of a Dataflow job's end in a state that is not success.

    Args:
        state: without `JOB_STATE_`.
        said: the service's last word of an error, "" where there is none.
    """
    if state == "CANCELLED":
        return BroetchenError(f"the Dataflow job was cancelled, in the console or by gcloud; {_AGAIN}")
    if state != "FAILED":
        return BroetchenError(f"the Dataflow job ended as {state}, which somebody asked for elsewhere; {_AGAIN}")
    if said in _NO_REASON:
        return BroetchenError(f"the Dataflow job failed, and the service gives no reason; {_PAGE}. Then {_AGAIN}")
    known = _of_meaning(said, DATAFLOW)
    return known or BroetchenError(f"the Dataflow job failed: {last_line(said)}; {_PAGE}. Then {_AGAIN}")


def _of_portable_job(job: str, state: str, said: str, *, place: str) -> BroetchenError:
    if state == "CANCELLED":
        return BroetchenError(f"the job {job} was cancelled at its job service; {_AGAIN}")
    if said.strip() in _NO_REASON:
        return BroetchenError(
            f"the job {job} ended as {state}, and its job service gives no reason; see its log there. Then {_AGAIN}"
        )
    known = _of_meaning(said, place)
    return known or BroetchenError(
        f"the job {job} ended as {state}: {last_line(said)}; the log of its job service has more. Then {_AGAIN}"
    )
