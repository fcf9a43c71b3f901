"""How every job runs: Beam's options with our defaults, worker processes where they pay, errors in plain words."""

from __future__ import annotations

import contextlib
import logging
import posixpath
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, WorkerOptions

from beam_pipelines.runners.dataflow import check_buckets, pinned_packages, with_dataflow_defaults
from beam_pipelines.runners.dataflow_cost import dataflow_cost, machine_options
from beam_pipelines.runners.failures import plain_errors
from beam_pipelines.runners.forked import WaitingWorkers, waiting_workers
from beam_pipelines.runners.local import local_workers, worker_processes
from beam_pipelines.runners.options import pipeline_options
from beam_pipelines.runners.remote.run import describe_job, remote_defaults, remote_runner, run_remote
from beam_pipelines.runners.remote.services import DATAFLOW, check_endpoint, read_counters
from transforms.files import storage
from transforms.files.scratch import temporary_folder
from transforms.locks.held import HeldLock
from transforms.locks.job import RemoteJob

_LOGGER = logging.getLogger(__name__)


class Job:
    """A job that is ready to run; `run_job` makes it.

    Args:
        options: Beam's, with our defaults.
        workers: of a local run.
        arguments: Beam's options as given.

    Attributes:
        on_dataflow: whether Dataflow runs it.
        template: where it is staged to be started later, and not run now (`--template_location`).
    """

    def __init__(self, options: PipelineOptions, workers: WaitingWorkers, arguments: Sequence[str]) -> None:
        self._options, self._workers, self._arguments = options, workers, arguments
        self._runner = remote_runner(arguments)
        self._started: RemoteJob | None = None
        self.on_dataflow = self._runner == DATAFLOW
        template = options.view_as(GoogleCloudOptions).template_location if self.on_dataflow else None
        self.template: str | None = template or None

    def remote(self, build: str = "") -> RemoteJob | None:
        """A lock's description of the job that a service will run; None where this process runs it, or nobody does.

        Args:
            build: a SHA-256 that two builds share if they build the same.
        """
        return None if self._runner is None or self.template else describe_job(self._runner, self._options, build)

    @contextlib.contextmanager
    def pipeline(self, lock: HeldLock | None = None, build: str = "") -> Iterator[beam.Pipeline]:
        """The pipeline, which runs to its end where the block ends.

        Args:
            lock: of the output, which stays where a service has the job and may not have ended it.
            build: as for `remote`.

        Raises:
            UsageError, BroetchenError: see `plain_errors` and `run_remote`.
        """
        remote = self.remote(build)
        with plain_errors(self._runner):
            if remote is None:
                with self._workers.pipeline(self._options) as pipeline:
                    yield pipeline
                return
            pipeline = beam.Pipeline(options=self._options)
            yield pipeline
            run_remote(pipeline, remote, lock or HeldLock(), self._arguments, self._note)

    def _note(self, job: RemoteJob) -> None:
        self._started = job

    def counters(self) -> Mapping[str, Mapping[str, int]]:
        """The counters of its steps so far, where a service runs it and tells them; see `read_counters`."""
        return read_counters(self._started, self._arguments) if self._started else {}


def job_options(arguments: Sequence[str], output: str | None = None, *, work_s: float = 0.0) -> PipelineOptions:
    """Beam's options as given, with our defaults for Dataflow and for local workers; see `run_job`.

    Raises:
        UsageError: Beam has no such option or runner, or the runner cannot run this job.
        BroetchenError: no job service answers at the `--job_endpoint`.
    """
    defaults = [*local_workers(arguments, work_s), *remote_defaults(arguments, output)]
    if work_s and remote_runner(arguments) == DATAFLOW:
        defaults += machine_options(arguments, work_s)
    options = pipeline_options([*defaults, *with_dataflow_defaults(arguments, output)])
    if remote_runner(arguments) not in (None, DATAFLOW):
        check_endpoint(arguments)
    return options


@contextlib.contextmanager
def run_job(
    arguments: Sequence[str], *, work_s: float, output: str | None = None, prepare: Callable[[], None] = lambda: None
) -> Iterator[Job]:
    """A job by Beam's options. Enter the block before this process has threads, so that its workers can be forks.

    Args:
        arguments: Beam's options as given; they are the last word.
        work_s: about how many seconds the work takes in one process; decides how many worker processes a local run
            takes, and how many machines Dataflow is asked for.
        output: the folder that the job writes to; None where it only reads.
        prepare: called in each worker process at once, while this one goes on.

    Raises:
        UsageError: Beam has no such option or runner, or the runner cannot run this job.
        BroetchenError: a service does not answer, or a bucket cannot be written.
    """
    options = job_options(arguments, output, work_s=work_s)
    on_dataflow = remote_runner(arguments) == DATAFLOW
    if on_dataflow:
        check_buckets(options)
        _tell_machines(arguments, options, work_s)
    packages = pinned_packages(options) if on_dataflow else contextlib.nullcontext()
    with packages, waiting_workers(worker_processes(options), prepare) as workers:
        yield Job(options, workers, arguments)


def _tell_machines(arguments: Sequence[str], options: PipelineOptions, work_s: float) -> None:
    """Says how many machines a job on Dataflow asks for, unless the user has."""
    if not work_s or not machine_options(arguments, work_s):
        return
    asked, hours = options.view_as(WorkerOptions), dataflow_cost(work_s).processor_hours
    fixed = asked.autoscaling_algorithm == "NONE"
    _LOGGER.info(
        "asking Dataflow for %s machines, since the work takes some %s processor hours and a machine pays from a "
        "quarter of an hour on; --num_workers%s",
        asked.num_workers if fixed else f"{asked.num_workers} to {asked.max_num_workers}",
        f"{hours:,.1f}" if hours >= 0.1 else "0.1 or fewer",
        " chooses another number" if fixed else " and --max_num_workers choose others",
    )


@contextlib.contextmanager
def job_folder(arguments: Sequence[str], job: str, output: str | None = None) -> Iterator[str]:
    """A folder that the workers of a job share, and that is gone after it.

    It lies below `--temp_location`, where that is given or follows from `output`, as for `run_job`, and else on this
    machine; `job` is part of its name.

    Raises:
        UsageError: the runner needs a `--temp_location`, or Beam has no such option or runner.
    """
    remote = job_options(arguments, output).view_as(GoogleCloudOptions).temp_location
    if not remote:
        with temporary_folder(job) as local:
            yield local
        return
    # Workers elsewhere cannot read a folder of this machine.
    folder = posixpath.join(remote, f"broetchen-{job}-{uuid.uuid4().hex}")
    try:
        yield folder
    finally:
        storage.delete_tree(folder)
