"""Shards from footers, and the shards to tokenize in each round.

Where shards end, and in which order they hold the row groups, decides every dataset's files: a change that moves it by
one byte or one place gives users other shards of the same config, and takes finished work for another's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.budget.token_budget import ShardCount, merge_counts, usable_prefix
from transforms.dataset.manifest import Order
from transforms.parquet.footer import RowGroup, SourceFile
from transforms.recipe.ratio import Ratio
from transforms.recipe.shard_plan import (
    MARGIN,
    PlannedShard,
    ShardLimits,
    lay_out_shards,
    next_shards,
    order_row_groups,
)


def source(*files: Sequence[int]) -> list[SourceFile]:
    return [
        SourceFile(f"{number}.parquet", 1, "", None, tuple(RowGroup(1, size, size) for size in sizes))
        for number, sizes in enumerate(files)
    ]


def planned(sizes: Sequence[int]) -> list[PlannedShard]:
    return [PlannedShard(ordinal, ((0, ordinal),), 1, size, size) for ordinal, size in enumerate(sizes)]


def test_sequential_order_is_that_of_files_and_row_groups_whatever_the_seed() -> None:
    footers = source([30, 10, 20], [], [5, 1])
    in_order = [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)]
    assert order_row_groups(footers, "sequential", 0) == in_order
    assert order_row_groups(footers, "sequential", 7) == in_order


@pytest.mark.parametrize(
    ("seed", "expected"),
    [(7, [(2, 1), (2, 0), (0, 1), (0, 2), (0, 0)]), (8, [(0, 0), (0, 2), (2, 1), (0, 1), (2, 0)])],
)
def test_shuffled_order_is_by_the_hash_of_seed_file_and_row_group(seed: int, expected: list[tuple[int, int]]) -> None:
    """A shell gives it: `for g in 0:0 0:1 0:2 2:0 2:1; do echo $(printf 7:$g | sha256sum) $g; done | sort`."""
    assert order_row_groups(source([30, 10, 20], [], [5, 1]), "shuffled", seed) == expected


def test_shuffling_is_a_permutation_that_the_seed_decides() -> None:
    footers = source([1] * 20, [1] * 20)
    ordered = order_row_groups(footers, "sequential", 0)
    shuffled = order_row_groups(footers, "shuffled", 7)
    assert sorted(shuffled) == ordered
    assert shuffled != order_row_groups(footers, "shuffled", 8)
    # The permutation is part of the format: it may never change.
    assert shuffled[:5] == [(1, 19), (1, 9), (0, 19), (0, 7), (1, 4)]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (1, [[0], [1], [2], [3], [4]]),
        (89, [[0], [1], [2], [3], [4]]),
        (90, [[0], [1, 2], [3], [4]]),
        (99, [[0], [1, 2], [3], [4]]),
        (100, [[0, 1], [2], [3], [4]]),
        (129, [[0, 1], [2], [3], [4]]),
        (130, [[0, 1, 2], [3], [4]]),
        (269, [[0, 1, 2], [3], [4]]),
        (270, [[0, 1, 2], [3, 4]]),
        (379, [[0, 1, 2], [3, 4]]),
        (380, [[0, 1, 2, 3], [4]]),
        (400, [[0, 1, 2, 3, 4]]),
    ],
)
def test_a_shard_takes_row_groups_up_to_the_target_and_not_a_byte_more(target: int, expected: list[list[int]]) -> None:
    """They have 40, 60, 30, 250 and 20 bytes; one larger than the target stands alone, even as the first."""
    footers = source([40, 60], [30, 250, 20])
    groups = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    shards = lay_out_shards(footers, groups, ShardLimits(target))
    assert [[groups.index(member) for member in shard.row_groups] for shard in shards] == expected


def test_a_shard_knows_its_place_and_the_sums_of_its_row_groups() -> None:
    footers = [
        SourceFile("0.parquet", 1, "", None, (RowGroup(3, 40, 7), RowGroup(5, 60, 11))),
        SourceFile("1.parquet", 1, "", None, (RowGroup(2, 30, 13), RowGroup(1, 250, 90), RowGroup(4, 20, 5))),
    ]
    groups = [(1, 1), (1, 2), (0, 1), (0, 0), (1, 0)]
    assert lay_out_shards(footers, groups, ShardLimits(100)) == (
        PlannedShard(0, ((1, 1),), rows=1, text_bytes=250, stored_bytes=90),
        PlannedShard(1, ((1, 2), (0, 1)), rows=9, text_bytes=80, stored_bytes=16),
        PlannedShard(2, ((0, 0), (1, 0)), rows=5, text_bytes=70, stored_bytes=20),
    )


def test_without_row_groups_there_is_no_shard() -> None:
    assert order_row_groups(source([], []), "shuffled", 0) == []
    assert lay_out_shards(source([], []), [], ShardLimits(100, 100, 10)) == ()


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (1, [[0], [1], [2], [3], [4]]),
        (10, [[0], [1], [2], [3], [4]]),  # 4 + 7 records of the first two are 11
        (11, [[0, 1], [2], [3], [4]]),
        (15, [[0, 1, 2], [3], [4]]),
        (16, [[0, 1, 2], [3], [4]]),
        (26, [[0, 1, 2], [3], [4]]),
        (27, [[0, 1, 2], [3, 4]]),
        (42, [[0, 1, 2, 3, 4]]),
    ],
)
def test_a_shard_takes_row_groups_up_to_the_limit_of_records(limit: int, expected: list[list[int]]) -> None:
    """One record for each row, and one for each 100 bytes of the text of a shard, the last of which are fewer.

    The text of the shards is 40, 100, 130, 2,380 and 2,400 bytes, with each row group after the other.
    """
    groups = (RowGroup(3, 40, 7), RowGroup(7, 60, 11), RowGroup(3, 30, 13), RowGroup(2, 2250, 90), RowGroup(2, 20, 5))
    footers = [SourceFile("0.parquet", 1, "", None, groups)]
    members = [(0, number) for number in range(len(groups))]
    shards = lay_out_shards(footers, members, ShardLimits(10**6, limit, 100))
    assert [[group for _, group in shard.row_groups] for shard in shards] == expected
    # Whichever limit is reached first.
    assert len(lay_out_shards(footers, members, ShardLimits(129, limit, 100))) >= 3


def test_records_are_rows_where_a_document_is_a_record() -> None:
    limits = ShardLimits(1000, 5)
    assert limits.records_in(5, 10**9) == 5
    assert not limits.too_many(5, 10**9)
    assert limits.too_many(6, 0)
    assert limits.exceeded(5, 1001)
    assert not limits.exceeded(5, 1000)
    assert not ShardLimits(1000).too_many(10**9, 0)


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 40)), max_size=8), max_size=5),
    st.builds(
        ShardLimits,
        st.integers(1, 300),
        st.none() | st.integers(1, 120),
        st.none() | st.integers(1, 30),
    ),
    st.sampled_from(["sequential", "shuffled"]),
)
def test_shards_hold_every_row_group_once_and_in_order(
    files: list[list[tuple[int, int]]], limits: ShardLimits, order: Order
) -> None:
    """An unbroken partition; only single row groups exceed a limit; no shard could have taken the next row group."""
    footers = [
        SourceFile(f"{number}.parquet", 1, "", None, tuple(RowGroup(rows, size, size) for size, rows in groups))
        for number, groups in enumerate(files)
    ]
    groups = order_row_groups(footers, order, 3)
    shards = lay_out_shards(footers, groups, limits)
    assert [member for shard in shards for member in shard.row_groups] == groups
    assert sorted(groups) == [(f, g) for f, members in enumerate(files) for g in range(len(members))]
    assert [shard.ordinal for shard in shards] == list(range(len(shards)))

    def totals(members: Sequence[tuple[int, int]]) -> tuple[int, int]:
        return sum(files[f][g][0] for f, g in members), sum(files[f][g][1] for f, g in members)

    def fits(members: Sequence[tuple[int, int]]) -> bool:
        size, rows = totals(members)
        records = rows if limits.record_bytes is None else rows + math.ceil(size / limits.record_bytes)
        return size <= limits.text_bytes and (limits.records is None or records <= limits.records)

    for shard in shards:
        assert fits(shard.row_groups) or len(shard.row_groups) == 1
        assert (shard.text_bytes, shard.rows) == totals(shard.row_groups)
    for shard, following in itertools.pairwise(shards):
        assert not fits([*shard.row_groups, following.row_groups[0]])


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=30),
    st.builds(Ratio, st.floats(0.05, 5), st.floats(0, 3), st.floats(0, 1)),
    st.integers(1, 5000),
    st.data(),
)
def test_the_rounds_meet_the_budget_whatever_was_sampled(
    sizes: list[int], sampled: Ratio, need: int, data: st.DataObject
) -> None:
    """Plays the rounds of the main job over shards whose true tokens the plan can only guess at."""
    shards = planned(sizes)
    true = [data.draw(st.integers(0, 2 * size)) for size in sizes]
    counts: list[ShardCount] = []

    def tokenize(ordinal: int, stop_after: int | None) -> ShardCount:
        # Reading stops at the end of a batch: here, as soon as the limit is reached.
        limit = true[ordinal] if stop_after is None else min(true[ordinal], stop_after)
        return ShardCount(ordinal, limit, rows=1, complete=limit == true[ordinal])

    known = usable_prefix(())
    for _ in range(4):
        tasks = next_shards(shards, known, sampled, need)
        counts += [tokenize(*task) for task in tasks]
        assert [ordinal for ordinal, _ in tasks] == list(range(len(known), len(known) + len(tasks))) or (
            known and not known[-1].complete
        )
        assert all(stop_after is None for _, stop_after in tasks[:-1])
        known = usable_prefix(merge_counts(counts))
    steps = 0
    while tasks := next_shards(shards, known, sampled, need):
        ordinal = tasks[0][0]
        have = sum(count.tokens for count in known[:ordinal])
        known = (*known[:ordinal], tokenize(ordinal, need - have))
        steps += 1
        assert steps <= len(shards) + 1
    total = sum(count.tokens for count in known)
    assert total >= need or (len(known) == len(shards) and total == sum(true))
    # The stream is unbroken, and only its last shard may have stopped early.
    assert all(count.complete for count in known[:-1])


@pytest.mark.parametrize(
    ("sizes", "ratio", "need", "tasks"),
    [
        # Where the ratio is sure, the round goes to the end; the shard in which it lies stops there.
        ([100] * 10, Ratio(1.0), 400, [(0, None), (1, None), (2, None), (3, 100)]),
        ([100] * 10, Ratio(1.0), 401, [(0, None), (1, None), (2, None), (3, None), (4, 1)]),
        ([100] * 10, Ratio(1.0), 40, [(0, 40)]),
        ([200, 402, 10], Ratio(0.5), 400, [(0, None), (1, None), (2, 99)]),
        # Off by a fifth: three shards of up to 120 are surely needed, since 20 tokens in vain are taken for it.
        ([100] * 10, Ratio(1.0, 0.2), 400, [(0, None), (1, None), (2, None)]),
        ([100] * 10, Ratio(1.0, 0.2), 342, [(0, None), (1, None)]),
        ([100] * 10, Ratio(1.0, 0.2), 343, [(0, None), (1, None), (2, None)]),
        # Off by 2 %: four shards hold 392 at least, and 400 + 16 at most are tokenized.
        ([100] * 10, Ratio(1.0, 0.02), 400, [(0, None), (1, None), (2, None), (3, None), (4, 8)]),
        # Not even the first is sure where a part of it may do.
        ([100] * 10, Ratio(1.0, 0.5), 110, [(0, 110)]),
        ([100] * 10, Ratio(1.0, 0.5), 143, [(0, None)]),
        ([100] * 10, Ratio(1.0, 9.0), 5, [(0, 5)]),
        # A source that is too short, and one of no row groups.
        ([100] * 3, Ratio(1.0, 0.3), 10_000, [(0, None), (1, None), (2, 9860)]),
        ([100] * 3, Ratio(1.0), 10_000, [(0, None), (1, None), (2, 9800)]),
        ([], Ratio(1.0), 10, []),
    ],
)
def test_the_first_round_takes_what_the_sample_is_sure_of(
    sizes: Sequence[int], ratio: Ratio, need: int, tasks: list[tuple[int, int | None]]
) -> None:
    assert next_shards(planned(sizes), [], ratio, need) == tasks


@pytest.mark.parametrize(
    ("counts", "need", "tasks"),
    [
        # Where a shard was cut short it is read again, and its tokens, which are no whole shard's, measure nothing.
        ([ShardCount(0, 30, complete=False)], 40, [(0, 40)]),
        # Shards without a token measure nothing either, or all of the source would be read.
        ([ShardCount(0, 0)], 500, [(1, 500)]),
        # The budget is met, if need be by a shard that was cut short for it.
        ([ShardCount(0, 50)], 50, []),
        ([ShardCount(0, 50)], 49, []),
        ([ShardCount(0, 50), ShardCount(1, 30, complete=False)], 80, []),
        ([ShardCount(0, 50), ShardCount(1, 30, complete=False)], 81, [(1, 31)]),
        # No shard is left.
        ([ShardCount(ordinal, 10) for ordinal in range(5)], 51, []),
    ],
)
def test_later_rounds_go_by_what_was_counted(
    counts: list[ShardCount], need: int, tasks: list[tuple[int, int | None]]
) -> None:
    assert next_shards(planned([100] * 5), counts, Ratio(9.9), need) == tasks


def test_many_equal_shards_are_trusted_however_wrong_the_sample_was() -> None:
    """Forty shards of 100 tokens: the ten that are missing are tokenized in one round, and some 5 % in vain."""
    counts = [ShardCount(ordinal, 100) for ordinal in range(40)]
    tasks = next_shards(planned([100] * 100), counts, Ratio(9.9, 0.1), 5000)
    assert [ordinal for ordinal, _ in tasks[:10]] == list(range(40, 50))
    assert sum(100 if stop_after is None else min(100, stop_after) for _, stop_after in tasks) <= 1000 + 5000 * MARGIN
    assert tasks[-1][1] is not None


def test_shards_without_text_measure_nothing() -> None:
    """BOS and EOS make tokens of rows whose text takes no bytes."""
    assert next_shards(planned([0, 100]), [ShardCount(0, 5)], Ratio(1.0), 45) == [(1, 40)]
