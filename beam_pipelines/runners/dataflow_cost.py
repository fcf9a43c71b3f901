"""The cost of a job on Dataflow: processor hours, their price, and the number of machines to ask for. Arithmetic only.

`broetchen plan` shows hours and price, a job that is submitted gets its number of machines, and docs/dataflow.md has
its figures from here (https://cloud.google.com/dataflow/pricing).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions, WorkerOptions

PRICES_OF = 2024
"""The year of the prices below, in us-central1."""

TOKENS_PER_S = 11_600_000
"""With one process on one processor, gigatoken and the sample tokenizer: docs/benchmarks.md, "A second worker"."""

_DOLLARS_PER_PROCESSOR_HOUR = 0.056
_DOLLARS_PER_GB_OF_MEMORY_HOUR = 0.003557
_DOLLARS_PER_GB_OF_DISK_HOUR = 0.000054

# The default machine, n2-standard-4, with a disk of 50 GB; see `beam_pipelines.runners.dataflow`.
_PROCESSORS, _MEMORY_GB, _DISK_GB = 4, 16, 50

# A machine is billed for the minutes in which it starts and installs its packages: less work is not worth one.
_WORK_OF_A_MACHINE_S = 15 * 60
# 96 processors of the default machine; more are a question of quotas, and the user's.
_MOST_MACHINES = 24


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


@dataclasses.dataclass(frozen=True)
class Machines:
    """How many machines a job starts with, and how many it may take at most."""

    first: int
    most: int


def machines_for(seconds: float, *, machine_type: str | None = None) -> Machines:
    """The machines for work that takes one process so many seconds.

    One for each quarter of an hour that its processors are busy, so that the start of machines, which is billed, stays
    a small part; and twice as many at most, since a bucket or the hub may keep processors waiting.

    Args:
        machine_type: of Compute Engine, as `n2-standard-16`; the number at its end is that of its processors, which
            one of a user's own measure, as `n2-custom-16-32768`, has before its memory.

    >>> machines_for(200e9 / TOKENS_PER_S)
    Machines(first=5, most=10)
    """
    found = re.search(r"\bcustom-(\d+)-|-(\d+)$", machine_type or "")
    processors = int(found[1] or found[2]) if found else _PROCESSORS
    first = min(_MOST_MACHINES, max(1, math.ceil(seconds / max(1, processors) / _WORK_OF_A_MACHINE_S)))
    return Machines(first, min(_MOST_MACHINES, 2 * first))


def machine_options(arguments: Sequence[str], seconds: float) -> list[str]:
    """Beam's options for as many machines as work takes that keeps one process busy for so many seconds.

    Where `arguments` give one of the two numbers, it stands, and the other fits it. With
    `--autoscaling_algorithm=NONE`, the first is all.

    Args:
        arguments: Beam's options as given.

    >>> machine_options(["--max_num_workers=3"], 200e9 / TOKENS_PER_S)
    ['--num_workers=3']
    """
    given = PipelineOptions(list(arguments)).view_as(WorkerOptions)
    machines = machines_for(seconds, machine_type=given.machine_type)
    options = []
    if not given.num_workers:
        first = min(machines.first, given.max_num_workers or machines.first)
        options.append(f"--num_workers={first}")
    if not given.max_num_workers and given.autoscaling_algorithm != "NONE":
        options.append(f"--max_num_workers={max(machines.most, given.num_workers or 0)}")
    return options
