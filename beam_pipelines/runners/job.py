"""How every job runs: Beam's options with our defaults, worker processes where they pay, errors in plain words."""

from __future__ import annotations

import contextlib
import posixpath
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from beam_pipelines.runners.dataflow import with_dataflow_defaults
from beam_pipelines.runners.failures import plain_errors
from beam_pipelines.runners.forked import WaitingWorkers, waiting_workers
from beam_pipelines.runners.local import local_workers, worker_processes
from beam_pipelines.runners.options import pipeline_options, runner_name
from transforms.files import storage


class Job:
    """A job that is ready to run; `run_job` makes it.

    Attributes:
        on_dataflow: whether Dataflow runs it.
        template: where it is staged to be started later, and not run now (`--template_location`).
    """

    def __init__(self, options: PipelineOptions, workers: WaitingWorkers, *, on_dataflow: bool) -> None:
        self._options, self._workers, self.on_dataflow = options, workers, on_dataflow
        template = options.view_as(GoogleCloudOptions).template_location if on_dataflow else None
        self.template: str | None = template or None

    @contextlib.contextmanager
    def pipeline(self) -> Iterator[beam.Pipeline]:
        """The pipeline, which runs to its end where the block ends.

        Raises:
            UsageError, BroetchenError: see `plain_errors`.
        """
        with plain_errors(), self._workers.pipeline(self._options) as pipeline:
            yield pipeline


def job_options(arguments: Sequence[str], output: str | None = None, *, work_s: float = 0.0) -> PipelineOptions:
    """Beam's options as given, with our defaults for Dataflow and for local workers; see `run_job`.

    Raises:
        UsageError: Beam has no such option or runner, or the runner cannot run this job.
    """
    return pipeline_options([*local_workers(arguments, work_s), *with_dataflow_defaults(arguments, output)])


@contextlib.contextmanager
def run_job(
    arguments: Sequence[str], *, work_s: float, output: str | None = None, prepare: Callable[[], None] = lambda: None
) -> Iterator[Job]:
    """A job by Beam's options. Enter the block before this process has threads, so that its workers can be forks.

    Args:
        arguments: Beam's options as given; they are the last word.
        work_s: about how many seconds the work takes in one process; decides how many worker processes a local run
            takes.
        output: the folder that the job writes to; None where it only reads.
        prepare: what each worker process does at once, while this one goes on.

    Raises:
        UsageError: Beam has no such option or runner, or the runner cannot run this job.
    """
    options = job_options(arguments, output, work_s=work_s)
    with waiting_workers(worker_processes(options), prepare) as workers:
        yield Job(options, workers, on_dataflow=runner_name(arguments) == "DataflowRunner")


@contextlib.contextmanager
def job_folder(arguments: Sequence[str], job: str) -> Iterator[str]:
    """A folder that the workers of a job share, and that is gone after it.

    It lies below `--temp_location`, where that is given, and else on this machine; `job` is part of its name.

    Raises:
        UsageError: the runner needs a `--temp_location`, or Beam has no such option or runner.
    """
    remote = job_options(arguments).view_as(GoogleCloudOptions).temp_location
    if not remote:
        with tempfile.TemporaryDirectory(prefix=f"broetchen-{job}-") as local:
            yield local
        return
    # Workers elsewhere cannot read a folder of this machine.
    folder = posixpath.join(remote, f"broetchen-{job}-{uuid.uuid4().hex}")
    try:
        yield folder
    finally:
        storage.delete_tree(folder)
