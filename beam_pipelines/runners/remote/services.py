"""The services that run jobs elsewhere, asked about one job as a lock describes it: Dataflow, and job services of Beam.

A lock is no command: its content is checked before anybody is asked, and credentials go to no endpoint but Google's
and the one that this command was given.

Rests on `_jobs_client`, `_messages_client` and `_metrics_client` of Beam 2.77's `DataflowApplicationClient`, which have
Beam's own credentials and endpoint: its public methods retry an answer that says "not found" for minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import grpc  # type: ignore[import-untyped]
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.job.utils import struct_to_dict

from transforms.errors import BroetchenError, one_line
from transforms.files.errors import reason_and_advice
from transforms.locks.held import CannotTellError
from transforms.locks.job import RemoteJob
from transforms.locks.owner import LockOwner, this_process

DATAFLOW = "DataflowRunner"
ENDED = frozenset({"DONE", "FAILED", "CANCELLED", "DRAINED", "UPDATED"})
"""States that a job does not leave."""

# Prepared, and not begun.
_NOT_BEGUN = "STOPPED"
_ANSWER_S = 30.0
# A job service is one process on one machine, which may be gone without a word.
_SERVICE_ANSWER_S = 10.0
_READY_S = 10.0
IN_THIS_PROCESS = "embed"
"""The endpoint of a job service that Beam starts within the process itself."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,254}")
_LOOPBACK = re.compile(r"(?:localhost|127(?:\.\d+){3}|\[::1\]):\d+")


class Service(Protocol):
    """A service that has been found; its methods raise `CannotTellError` where it does not answer."""

    def state(self, job: str) -> str:
        """The state of the job of this id, by its name in `PipelineState`."""

    def cancel(self, job: str) -> None:
        """Asks that it be cancelled; it ends some time later."""

    def unfinished(self, name: str) -> list[str]:
        """The ids of the jobs of this name that have begun and not ended."""


def service_of(job: RemoteJob, arguments: Sequence[str] = ()) -> Service:
    """The service that runs a job.

    Args:
        job: as a lock describes it.
        arguments: Beam's options as this command was given them.

    Raises:
        CannotTellError: there is none that may be asked.
    """
    if job.runner == DATAFLOW:
        return dataflow_of(job, arguments)
    with _clients(job):
        return _job_service(job, job_endpoint(arguments))


def dataflow_of(job: RemoteJob, arguments: Sequence[str] = ()) -> DataflowJobs:
    """Dataflow, for a job of its own; as `service_of`, which raises the same.

    Raises:
        CannotTellError: it may not be asked.
    """
    with _clients(job):
        return _dataflow(job, PipelineOptions(list(arguments)))


def read_counters(job: RemoteJob, arguments: Sequence[str] = ()) -> Mapping[str, Mapping[str, int]]:
    """The counters of a job's steps so far, by namespace and name; empty where its service does not tell them."""
    if job.runner == DATAFLOW and job.job:
        with contextlib.suppress(CannotTellError):
            return _known_dataflow(job, tuple(arguments)).counters(job.job)
    return {}


@functools.lru_cache(maxsize=1)
def _known_dataflow(job: RemoteJob, arguments: tuple[str, ...]) -> DataflowJobs:
    # A client keeps connections, and progress asks every few seconds, for hours.
    return dataflow_of(job, arguments)


@contextlib.contextmanager
def _clients(job: RemoteJob) -> Iterator[None]:
    try:
        yield
    except CannotTellError:
        raise
    except Exception as error:  # as of credentials, for which clients have errors of many kinds
        raise CannotTellError(job, f"its service cannot be asked ({_reason(error)})") from error


def asked_with(arguments: Sequence[str]) -> Callable[[LockOwner], bool]:
    """A function that asks the service whether the job that a lock names has begun and not ended.

    Args:
        arguments: Beam's options as this command was given them.
    """

    def goes_on(owner: LockOwner) -> bool:
        job = owner.job
        if job is None:
            return False
        service = service_of(job, arguments)
        if job.job:
            return service.state(job.job) not in ENDED
        # Another service would not know the id of a job, and say so. Of a name it would say that there is none.
        if _LOOPBACK.fullmatch(job.endpoint) and owner.system != this_process().system:
            raise CannotTellError(job, f"{job.endpoint} is an address of another machine, {one_line(owner.host)}")
        return bool(service.unfinished(job.name))

    return goes_on


def job_endpoint(arguments: Sequence[str]) -> str | None:
    """The address that `--job_endpoint` names; None without one."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--job_endpoint", nargs="?")
    given: str | None = parser.parse_known_args(list(arguments))[0].job_endpoint
    return given


def check_endpoint(arguments: Sequence[str]) -> None:
    """Checks that a job service answers, where one is named.

    Raises:
        BroetchenError: nobody does, within ten seconds.
    """
    endpoint = job_endpoint(arguments)
    if not endpoint or endpoint == IN_THIS_PROCESS:
        return
    with grpc.insecure_channel(endpoint) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_READY_S)
        except grpc.FutureTimeoutError as error:
            raise BroetchenError(
                f"--job_endpoint {endpoint}: no job service answers there within {_READY_S:.0f} s; check that it runs, "
                "and that address and port are right"
            ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, grpc.RpcError):
        return one_line(f"{error.code().name}: {error.details()}")
    return reason_and_advice(error)[0]


def _dataflow(job: RemoteJob, own: PipelineOptions) -> DataflowJobs:
    # Beam imports the client only where the gcp extra is installed.
    from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient

    options = own.view_as(GoogleCloudOptions)
    defaults = PipelineOptions([]).view_as(GoogleCloudOptions)
    if job.endpoint not in (defaults.dataflow_endpoint, options.dataflow_endpoint):
        raise CannotTellError(
            job, f"its endpoint is not Google's: add --dataflow_endpoint={one_line(job.endpoint)} to have it asked"
        )
    if not all(map(_NAME.fullmatch, (job.project, job.region, job.job or job.name))):
        raise CannotTellError(job, "it does not say of which project, region and name it is")
    options.project, options.region, options.dataflow_endpoint = job.project, job.region, job.endpoint
    return DataflowJobs(job, DataflowApplicationClient(own))


class DataflowJobs:
    """Dataflow, in the project and the region of a job; `service_of` makes it."""

    def __init__(self, job: RemoteJob, client: Any) -> None:
        self._job, self._client = job, client._jobs_client
        self._messages, self._metrics = client._messages_client, client._metrics_client
        self._place = {"project_id": job.project, "location": job.region}

    def state(self, job: str) -> str:
        """See `Service`."""
        from google.cloud import dataflow

        found = self._asked(self._client.get_job, dataflow.GetJobRequest(job_id=job, **self._place))
        return str(found.current_state.name).removeprefix("JOB_STATE_")

    def cancel(self, job: str) -> None:
        """See `Service`."""
        from google.cloud import dataflow

        cancelled = dataflow.Job(requested_state=dataflow.JobState.JOB_STATE_CANCELLED)
        self._asked(self._client.update_job, dataflow.UpdateJobRequest(job_id=job, job=cancelled, **self._place))

    def unfinished(self, name: str) -> list[str]:
        """See `Service`."""
        from google.cloud import dataflow

        active = dataflow.ListJobsRequest(filter=dataflow.ListJobsRequest.Filter.ACTIVE, name=name, **self._place)
        return [job.id for job in self._asked(_all_of(self._client.list_jobs), active) if job.name == name]

    def counters(self, job: str) -> dict[str, dict[str, int]]:
        """The counters of the job's own steps so far, by namespace and name; work that is done twice counts twice."""
        from google.cloud import dataflow

        request = dataflow.GetJobMetricsRequest(job_id=job, **self._place)
        # The sums over steps: of finished bundles, and so far.
        found: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        for metric in self._asked(self._metrics.get_job_metrics, request).metrics:
            context = metric.name.context
            if metric.name.origin == "user" and isinstance(metric.scalar, int | float):
                so_far = context.get("tentative") == "true"
                found[context.get("namespace", ""), metric.name.name][so_far] += int(metric.scalar)
        counters: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for (namespace, name), values in found.items():
            counters[namespace][name] = max(values)
        return counters

    def last_error(self, job: str) -> str:
        """The message that says best why the job failed; "" where there is none."""
        from google.cloud import dataflow

        errors = dataflow.JobMessageImportance.JOB_MESSAGE_ERROR
        request = dataflow.ListJobMessagesRequest(job_id=job, minimum_importance=errors, **self._place)
        asked = self._asked(_all_of(self._messages.list_job_messages), request)
        said = [message.message_text for message in asked if message.message_importance == errors]
        # As Beam's runner chooses: of one rank the last.
        return max(enumerate(said), key=lambda one: (_rank(one[1]), one[0]), default=(0, ""))[1]

    def _asked(self, ask: Callable[..., Any], request: Any) -> Any:
        try:
            return ask(request, timeout=_ANSWER_S)
        except Exception as error:  # of the client, of credentials, of the network
            raise CannotTellError(
                self._job, f"Dataflow does not say whether it has ended ({_reason(error)})"
            ) from error


def _all_of(ask: Callable[..., Iterable[Any]]) -> Callable[..., list[Any]]:
    """Asks for all pages of an answer."""
    return lambda request, **how: list(ask(request, **how))


def _rank(error: str) -> int:
    return -1 if "work item was attempted" in error else int("Traceback" in error)


def _job_service(job: RemoteJob, named: str | None) -> Service:
    if not job.endpoint:
        raise CannotTellError(job, "the address of its service is not known")
    if job.endpoint != named and not _LOOPBACK.fullmatch(job.endpoint):
        endpoint = one_line(job.endpoint)
        raise CannotTellError(
            job, f"{endpoint} was not named to this command: add --runner=PortableRunner --job_endpoint={endpoint}"
        )
    return _JobService(job)


class _JobService:
    """Each question goes over a channel of its own: a service that was not there may be there the next time."""

    def __init__(self, job: RemoteJob) -> None:
        self._job = job

    def state(self, job: str) -> str:
        found = self._asked("GetState", beam_job_api_pb2.GetJobStateRequest(job_id=job))
        return beam_job_api_pb2.JobState.Enum.Name(found.state)

    def cancel(self, job: str) -> None:
        self._asked("Cancel", beam_job_api_pb2.CancelJobRequest(job_id=job))

    def unfinished(self, name: str) -> list[str]:
        found = self._asked("GetJobs", beam_job_api_pb2.GetJobsRequest())
        past = {beam_job_api_pb2.JobState.Enum.Value(state) for state in (*ENDED, _NOT_BEGUN)}
        return [job.job_id for job in found.job_info if job.state not in past and _job_name(job) == name]

    def _asked(self, question: str, request: Any) -> Any:
        with grpc.insecure_channel(self._job.endpoint) as channel:
            try:
                return getattr(beam_job_api_pb2_grpc.JobServiceStub(channel), question)(
                    request, timeout=_SERVICE_ANSWER_S
                )
            except grpc.RpcError as error:
                reason = f"its service does not say whether it has ended ({_reason(error)})"
                raise CannotTellError(self._job, reason) from error


def _job_name(job: beam_job_api_pb2.JobInfo) -> object:
    """The option of that name: the name of a job itself is "job" for all that Beam's runner submits."""
    return struct_to_dict(job.pipeline_options).get("beam:option:job_name:v1")
