"""The job service: takes jobs of Beam's portable runner, and runs each on workers of several hosts.

It is made of Beam's protocol and of Beam's local runner (`beam_pipelines.runners.local_runner`). Beam's own service
for local use listens at `localhost`, hands out any file of its machine, gives a job one worker, and only says that a
job is cancelled. This one listens where it is told to and nowhere else, neither takes nor gives files, takes as many
workers as the hosts have, and ends a job by ending its processes.

Rests on `AbstractJobServiceServicer` and `AbstractBeamJob` of
`apache_beam/runners/portability/abstract_job_service.py`, Beam 2.77 (`tests/beam_pipelines/cluster/test_beam.py`).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc  # type: ignore[import-untyped]
from apache_beam.portability import common_urns
from apache_beam.portability.api import (
    beam_artifact_api_pb2,
    beam_artifact_api_pb2_grpc,
    beam_job_api_pb2,
    beam_job_api_pb2_grpc,
    beam_runner_api_pb2,
)
from apache_beam.runners.portability.abstract_job_service import AbstractJobServiceServicer
from apache_beam.transforms.environments import python_sdk_capabilities

from beam_pipelines.cluster.calls import new_server, started_server
from beam_pipelines.cluster.family import until_stopped
from beam_pipelines.cluster.hosts import Host, Hosts
from beam_pipelines.cluster.job import ClusterJob
from transforms.errors import BroetchenError, one_line

_LOGGER = logging.getLogger(__name__)
_STOPPED_S = 5.0
_CANCELLED_S = 30.0
# Beam's runner offers the names of the packages that the command has, for the log.
_NOT_NEEDED = frozenset({"submission_environment_dependencies.txt"})
_VERSION = "beam:version:sdk_base:"


def serve_jobs(address: str, hosts: Sequence[str], ready: Callable[[], None] = lambda: None) -> None:
    """Serves jobs until Ctrl-C or SIGTERM, which cancels those that run.

    Args:
        address: `HOST:PORT` by which commands and workers reach this machine.
        hosts: the addresses of the workers.
        ready: is called when it takes jobs.

    Raises:
        BroetchenError: this process cannot listen there.
    """
    service = JobService(address, hosts)
    server = new_server()
    beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(service, server)
    beam_artifact_api_pb2_grpc.add_ArtifactStagingServiceServicer_to_server(_NoStaging(), server)
    started_server(server, address)
    _LOGGER.info("%s: takes jobs; Ctrl-C cancels those that run", address)
    try:
        found = Hosts([Host(host, "", lambda _: None) for host in hosts], lambda line: _LOGGER.warning("%s", line))
        _LOGGER.info("a job takes %s", found)
    except BroetchenError as error:
        _LOGGER.warning("%s", error)
    ready()

    def stop() -> None:
        service.close()
        server.stop(_STOPPED_S)

    until_stopped(stop)


def _of_known_job[**P, T](method: Callable[P, T]) -> Callable[P, T]:
    """A method that is told a job by its id, and answers NOT_FOUND where there is none."""

    @functools.wraps(method)
    def checked(self: Any, request: Any, context: Any = None, timeout: Any = None) -> Any:
        job = request.preparation_id if isinstance(request, beam_job_api_pb2.RunJobRequest) else request.job_id
        if job not in self._jobs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no job {one_line(job)} here")
        return method(self, request, context)  # type: ignore[call-arg]

    return checked  # type: ignore[return-value]


class JobService(AbstractJobServiceServicer):
    """Beam's protocol for jobs.

    Args:
        address: of the service, as others reach it.
        hosts: the addresses of the workers.
    """

    def __init__(self, address: str, hosts: Sequence[str]) -> None:
        super().__init__()
        self._jobs: dict[str, ClusterJob] = {}  # type: ignore[assignment]
        self._address, self._hosts = address, hosts

    def create_beam_job(self, preparation_id: str, job_name: str, pipeline: Any, options: Any) -> ClusterJob:
        """The job that `Prepare` prepares."""
        return ClusterJob(preparation_id, job_name, pipeline, options, self._address, self._hosts)

    def Prepare(self, request: Any, context: Any = None, timeout: Any = None) -> Any:
        """Takes a job, unless it is one for other workers."""
        if reason := why_not(request.pipeline):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)
        return super().Prepare(request, context)

    Run = _of_known_job(AbstractJobServiceServicer.Run)
    GetState = _of_known_job(AbstractJobServiceServicer.GetState)
    GetPipeline = _of_known_job(AbstractJobServiceServicer.GetPipeline)
    Cancel = _of_known_job(AbstractJobServiceServicer.Cancel)
    GetStateStream = _of_known_job(AbstractJobServiceServicer.GetStateStream)
    GetMessageStream = _of_known_job(AbstractJobServiceServicer.GetMessageStream)

    @_of_known_job
    def GetJobMetrics(self, request: Any, context: Any = None, timeout: Any = None) -> Any:
        """The counters of the pipeline's own, once it is done."""
        return beam_job_api_pb2.GetJobMetricsResponse(
            metrics=beam_job_api_pb2.MetricResults(committed=self._jobs[request.job_id].metrics)
        )

    def close(self) -> None:
        """Cancels all jobs, and waits for their end."""
        jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        for job in jobs:
            job.wait(_CANCELLED_S)


def why_not(graph: beam_runner_api_pb2.Pipeline) -> str:
    """Why a pipeline cannot run here; empty where it can."""
    own = {capability for capability in python_sdk_capabilities() if capability.startswith(_VERSION)}
    for environment in graph.components.environments.values():
        theirs = {capability for capability in environment.capabilities if capability.startswith(_VERSION)}
        if theirs and theirs != own:
            shown = [", ".join(sorted(one.removeprefix(_VERSION) for one in some)) for some in (theirs, own)]
            return f"the command has {one_line(shown[0])}, and the cluster {shown[1]}; install the same on both"
        for dependency in environment.dependencies:
            if dependency.role_urn != common_urns.artifact_roles.STAGING_TO.urn:
                continue
            name = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(dependency.role_payload).staged_name
            if name not in _NOT_NEEDED:
                return (
                    f"the job brings {one_line(name)} for its workers, and theirs is what is installed on their hosts; "
                    "install it there, and leave out the option that brings it"
                )
    return ""


class _NoStaging(beam_artifact_api_pb2_grpc.ArtifactStagingServiceServicer):
    """Takes none of the files that a command offers: the workers have the packages installed on their hosts."""

    def ReverseArtifactRetrievalService(
        self, responses: Iterator[Any], context: Any
    ) -> Iterator[beam_artifact_api_pb2.ArtifactRequestWrapper]:
        """Asks for nothing."""
        return iter(())
