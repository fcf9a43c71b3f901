"""Dataflow: Beam's options where the command line does not give them (docs/dataflow.md), and the cost of a run."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from beam_pipelines.runners.options import runner_name
from transforms.errors import UsageError
from transforms.files import storage
from transforms.recipe.spec import DatasetSpec

SETUP_FILE = Path(__file__).resolve().parents[2] / "setup.py"

_FIXED = (
    # Four processors with 4 GiB each. Dataflow starts one Python process for each of them.
    (("--machine_type", "--worker_machine_type"), "--machine_type=n2-standard-4"),
    # The worker's packages, and the shard that each process stages on its disk before it uploads it.
    (("--disk_size_gb",), "--disk_size_gb=50"),
    # A process encodes one shard at a time: more threads would share its processor, and each hold an encoder and a
    # shard. Writing and fetching ahead have threads of their own.
    (("--number_of_worker_harness_threads",), "--number_of_worker_harness_threads=1"),
    # All that the steps need is in modules that the workers have; the submitting process's state is not theirs.
    (("--save_main_session", "--no_save_main_session"), "--no_save_main_session"),
)


def with_dataflow_defaults(arguments: Sequence[str], output: str | None = None) -> list[str]:
    """Beam's options as given, and where they name DataflowRunner, `dataflow_defaults` before them.

    Raises:
        UsageError: as `dataflow_defaults`.
    """
    if runner_name(arguments) != "DataflowRunner":
        return list(arguments)
    return [*dataflow_defaults(arguments, output), *arguments]


def check_reachable(specs: Iterable[DatasetSpec]) -> None:
    """Checks that Dataflow's workers can read the sources of datasets.

    Raises:
        UsageError: one is on this machine's own disk.
    """
    for spec in specs:
        for source in filter(storage.is_local, spec.sources):
            raise UsageError(
                f"datasets.{spec.name}.source: {source} is on this machine, where Dataflow's workers cannot read it; "
                "copy it to a bucket (gs://…), or take it from the hub (hf://…)"
            )


def dataflow_defaults(arguments: Sequence[str], output: str | None) -> list[str]:
    """Options to put before `arguments`, which name DataflowRunner: those that are not among them.

    * ``--setup_file``: the project's own, unless that or ``--sdk_container_image`` is given.
    * ``--temp_location``, ``--staging_location``: folders below ``output/.dataflow``; the second one below the first
      one if only that is given.
    * ``--machine_type``, ``--disk_size_gb``, ``--number_of_worker_harness_threads``, ``--no_save_main_session``.

    Experiments are left to Beam, which asks for the runner and for a process per processor by itself.

    Args:
        arguments: Beam's options as given; any of them is the last word.
        output: the folder of all datasets, or None where the job only reads.

    Raises:
        UsageError: the output is not in a bucket, there is neither an output nor a ``--temp_location``, or there is no
            setup.py to send to the workers.
    """
    given = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
    if output is None and "--temp_location" not in given:
        raise UsageError(
            "--runner DataflowRunner: the job needs a folder of a bucket for its own files; add "
            "--temp_location gs://BUCKET/FOLDER"
        )
    if output is not None and not output.startswith("gs://"):
        raise UsageError(f"--output {output}: Dataflow's workers cannot write there; give a folder of a bucket, gs://…")
    options = [option for names, option in _FIXED if not given.intersection(names)]
    own = posixpath.join(output or "", ".dataflow")
    if "--temp_location" not in given:
        options.append(f"--temp_location={own}/temp")
    if "--staging_location" not in given:
        root = PipelineOptions(list(arguments)).view_as(GoogleCloudOptions).temp_location or own
        options.append(f"--staging_location={posixpath.join(root, 'staging')}")
    if not given.intersection(("--setup_file", "--sdk_container_image")):
        if not SETUP_FILE.is_file():
            raise UsageError(
                "Dataflow's workers need this project, and it is not run from its source folder here: "
                "give --sdk_container_image (docs/dataflow.md), or --setup_file with the path of its setup.py"
            )
        options.append(f"--setup_file={SETUP_FILE}")
    return options


PRICES_OF = 2024
_DOLLARS_PER_PROCESSOR_HOUR = 0.056
_DOLLARS_PER_GB_OF_MEMORY_HOUR = 0.003557
_DOLLARS_PER_GB_OF_DISK_HOUR = 0.000054

# The default machine, n2-standard-4, with a disk of 50 GB; see dataflow_defaults.
_PROCESSORS, _MEMORY_GB, _DISK_GB = 4, 16, 50


@dataclasses.dataclass(frozen=True)
class DataflowCost:
    """Processor hours, one process on each, and their price; the start-up of workers is not in them."""

    processor_hours: float
    dollars: float


def dataflow_cost(seconds: float) -> DataflowCost:
    """The cost of work that takes one process so many seconds.

    >>> cost = dataflow_cost(4 * 3600)
    >>> cost.processor_hours, round(cost.dollars, 3)
    (4.0, 0.284)
    """
    hours = seconds / 3600
    machine_hour = (
        _PROCESSORS * _DOLLARS_PER_PROCESSOR_HOUR
        + _MEMORY_GB * _DOLLARS_PER_GB_OF_MEMORY_HOUR
        + _DISK_GB * _DOLLARS_PER_GB_OF_DISK_HOUR
    )
    return DataflowCost(hours, hours / _PROCESSORS * machine_hour)
