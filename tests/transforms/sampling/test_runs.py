"""Which records a sample takes: within shards, none twice, no more than asked for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from transforms.sampling.runs import Run, at_row_groups, in_few_shards, spread_runs


def records_of(runs: Sequence[Run], shards: Sequence[int]) -> list[tuple[int, int]]:
    read = [(run.shard, record) for run in runs for record in range(run.first, run.last)]
    assert len(set(read)) == len(read)
    assert all(0 <= record < shards[shard] for shard, record in read)
    return read


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(1, 120), st.integers(1, 9))
def test_runs_are_within_shards_and_do_not_overlap(shards: Sequence[int], most: int, runs: int) -> None:
    read = records_of(spread_runs(shards, most, runs), shards)
    assert len(read) <= most
    assert len(read) == (sum(shards) if sum(shards) <= most else most // min(runs, most) * min(runs, most))


@given(st.lists(st.integers(0, 50), max_size=8).filter(any), st.integers(2, 120), st.integers(1, 2))
def test_runs_in_few_shards(shards: Sequence[int], most: int, few: int) -> None:
    read = records_of(in_few_shards(shards, most, few), shards)
    assert 1 <= len(read) <= most
    assert len({shard for shard, _ in read}) <= few


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=5), st.integers(1, 60))
def test_runs_at_row_groups_begin_with_one(groups: Sequence[Sequence[int]], most: int) -> None:
    ends = [list(itertools.accumulate(sizes)) for sizes in groups]
    shards = [one[-1] for one in ends]
    runs = at_row_groups(spread_runs(shards, most), ends.__getitem__, most)
    assert len(records_of(runs, shards)) <= most
    assert all(run.first in (0, *ends[run.shard]) for run in runs)
