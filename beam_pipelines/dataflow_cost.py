"""What a build may take on Dataflow: processor hours at a measured rate, and dollars at list prices.

The prices are those of batch workers in us-central1 (https://cloud.google.com/dataflow/pricing) as they were known in
`PRICES_OF`; they differ by region, and change. Shuffled data, of which a build has next to none, is left out.
"""

from __future__ import annotations

import dataclasses

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
