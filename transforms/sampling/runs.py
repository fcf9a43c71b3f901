"""Which records of a split to read for a sample: runs of consecutive ones, spread evenly over its shards.

All functions are pure: they take how many records the shards have.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Callable, Sequence

_RUNS = 8


@dataclasses.dataclass(frozen=True)
class Run:
    """Records `first` to `last` of a shard, the last excluded."""

    shard: int
    first: int
    last: int


def spread_runs(shard_records: Sequence[int], most: int, runs: int = _RUNS) -> list[Run]:
    """Chooses at most `most` of the records of shards: all of them, or `runs` stretches that lie evenly spread.

    A stretch that goes over the end of a shard is two runs.

    >>> spread_runs([2, 3], most=5)
    [Run(shard=0, first=0, last=2), Run(shard=1, first=0, last=3)]
    >>> spread_runs([100, 102, 98], most=12, runs=3)
    [Run(shard=0, first=48, last=52), Run(shard=1, first=48, last=52), Run(shard=2, first=46, last=50)]
    """
    total = sum(shard_records)
    if total <= most:
        return [Run(shard, 0, records) for shard, records in enumerate(shard_records) if records]
    runs = max(1, min(runs, most))
    size = most // runs
    ends = list(itertools.accumulate(shard_records))
    spread = []
    for number in range(runs):
        start = (2 * number + 1) * total // (2 * runs) - size // 2
        stop = start + size
        while start < stop:
            shard = bisect.bisect_right(ends, start)
            begin, end = ends[shard] - shard_records[shard], min(stop, ends[shard])
            spread.append(Run(shard, start - begin, end - begin))
            start = end
    return spread


def in_few_shards(shard_records: Sequence[int], most: int, shards: int) -> list[Run]:
    """Runs of at most `most` records in all, from the middles of at most `shards` shards that lie evenly spread.

    >>> in_few_shards([100, 102, 98], most=12, shards=2)
    [Run(shard=0, first=47, last=53), Run(shard=2, first=46, last=52)]
    """
    chosen = sorted({run.shard for run in spread_runs(shard_records, shards, shards)})
    size = most // len(chosen) or 1
    firsts = [max(0, (shard_records[shard] - size) // 2) for shard in chosen]
    return [
        Run(shard, first, min(shard_records[shard], first + size)) for shard, first in zip(chosen, firsts, strict=True)
    ]


def at_row_groups(runs: Sequence[Run], ends: Callable[[int], Sequence[int]], most: int) -> list[Run]:
    """Runs that begin where the row groups begin in which `runs` do: rows before a row cannot be passed over.

    Args:
        runs: as they would be chosen if any record could be read alone.
        ends: the number of rows of a shard up to the end of each of its row groups.
        most: records to read in all.

    >>> at_row_groups([Run(0, 3, 5), Run(0, 12, 14)], lambda shard: [10, 20], most=4)
    [Run(shard=0, first=0, last=2), Run(shard=0, first=10, last=12)]
    """
    groups: set[Run] = set()
    for run in runs:
        shard_ends = ends(run.shard)
        group = bisect.bisect_right(shard_ends, run.first)
        if group < len(shard_ends):
            groups.add(Run(run.shard, shard_ends[group - 1] if group else 0, shard_ends[group]))
    size = most // max(1, len(groups))
    return [
        Run(run.shard, run.first, min(run.last, run.first + size))
        for run in sorted(groups, key=lambda run: (run.shard, run.first))
    ]
