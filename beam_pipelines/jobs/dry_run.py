"""A build without the building: all that it checks before it starts, and the plan. Nothing is written at its output."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Sequence

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.runner import create_runner

from beam_pipelines.config.mix import MixConfig
from beam_pipelines.jobs.build import check_grown
from beam_pipelines.jobs.plan import DatasetOutlook, plan
from beam_pipelines.jobs.specs import chosen_datasets, dataset_specs, load_config_tokenizer
from beam_pipelines.runners.dataflow import check_bucket, check_buckets, check_reachable
from beam_pipelines.runners.job import job_options
from beam_pipelines.runners.remote.run import describe_job, remote_runner
from beam_pipelines.runners.remote.services import DATAFLOW, asked_with, service_of
from transforms.building.datasets import find_finished
from transforms.building.grow import check_old_files
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.files.errors import explain_file_errors
from transforms.locks.held import CannotTellError
from transforms.locks.output import check_free
from transforms.recipe.plan import DatasetPlan
from transforms.recipe.spec import DatasetSpec
from transforms.tokenizer.spec import Engine


@dataclasses.dataclass(frozen=True)
class DryRun:
    """The plan of a build that is not run.

    Attributes:
        outlooks: of all datasets, as `plan` has them.
        finished: the names of those that are there already, and would stay.
        replaced: why those go that are there now, by name (`--overwrite`).
        taken_over: the shards that can be taken over, by name of those that are grown from another (`--grow`).
    """

    outlooks: Sequence[DatasetOutlook]
    finished: Sequence[str]
    replaced: dict[str, str]
    taken_over: dict[str, int]


def dry_run(
    config: MixConfig,
    output: str,
    *,
    datasets: Sequence[str] = (),
    engine: Engine = "auto",
    overwrite: bool = False,
    grow: str | None = None,
    beam_arguments: Sequence[str] = (),
    quiet: bool = True,
) -> DryRun:
    """Checks a build with the arguments of `beam_pipelines.jobs.build.build`, and plans it.

    Raises:
        UsageError: the config, the tokenizer, the engine or Beam's options cannot be used.
        BroetchenError: a source is missing or damaged, the output cannot be written or has other datasets, another
            build is at work there, or a service does not answer.
    """
    output = storage.without_slash(output)
    options = job_options(beam_arguments, output)
    names = chosen_datasets(config, datasets)
    tokenizer = load_config_tokenizer(config)
    specs = dataset_specs(config, names, tokenizer, output=output, engine=engine, overwrite=overwrite, grow=grow)
    check_grown(specs)
    _check_writable(output)
    check_free(output, asked_with(beam_arguments))
    _check_service(specs, beam_arguments, options)
    plans: dict[str, DatasetPlan] = {}
    outlooks = plan(config, datasets=datasets, engine=engine, on_plan=plans.__setitem__, quiet=quiet)
    finished, replaced = [], {}
    for spec in specs:
        try:
            # One that says to overwrite would delete the manifest at once.
            found = find_finished(dataclasses.replace(spec, overwrite=False), plans[spec.name])
        except BroetchenError as error:
            if not overwrite:
                raise
            replaced[spec.name] = str(error)
        else:
            finished += [spec.name] if found is not None else []
    grown = [spec for spec in specs if spec.grow is not None and spec.name not in finished]
    taken_over = {spec.name: len(check_old_files(spec, plans[spec.name])) for spec in grown}
    return DryRun(outlooks, finished, replaced, taken_over)


def _check_writable(output: str) -> None:
    if storage.is_local(output):
        with explain_file_errors(output, "written"):
            _check_folder(output)
    elif FileSystems.get_scheme(output) == "gs":
        check_bucket(output)


def _check_folder(output: str) -> None:
    folder = os.path.abspath(output)
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def _check_service(specs: Sequence[DatasetSpec], arguments: Sequence[str], options: PipelineOptions) -> None:
    """Asks the service that would run the job, if it is not this process, and whether it runs one at this output."""
    runner = remote_runner(arguments)
    if runner is None:
        return
    if runner == DATAFLOW:
        check_reachable(specs)
        check_buckets(options)
        wrong = PipelineOptionsValidator(options, create_runner(runner)).validate()
        if wrong:
            raise UsageError("; ".join(wrong))
    job = describe_job(runner, options, "")
    try:
        running = service_of(job, arguments).unfinished(job.name)
    except CannotTellError as error:
        raise BroetchenError(
            f"--runner {runner}: {error}; check its options, and that it can be reached from here"
        ) from error
    if running and runner == DATAFLOW:
        raise BroetchenError(f"{job} runs there already; wait until it is done, or cancel it and run this again")
