"""Shards from footers, and what to tokenize in each round.

Where shards end, and in which order they hold the row groups, decides every dataset's files: whatever moves it by one
byte or one place gives users other shards of the same config, and takes finished work for another's.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.budget.token_budget import ShardCount, merge_counts, usable_prefix
from transforms.parquet.footer import RowGroup, SourceFile
from transforms.recipe.shard_plan import PlannedShard, lay_out_shards, next_shards, order_row_groups, sure_shards


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
    """By a shell: `for g in 0:0 0:1 0:2 2:0 2:1; do echo $(printf 7:$g | sha256sum) $g; done | sort`."""
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
    """Of 40, 60, 30, 250 and 20 bytes; one that is larger than the target stands alone, even as the first."""
    footers = source([40, 60], [30, 250, 20])
    groups = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    shards = lay_out_shards(footers, groups, target)
    assert [[groups.index(member) for member in shard.row_groups] for shard in shards] == expected


def test_a_shard_knows_its_place_and_the_sums_of_its_row_groups() -> None:
    footers = [
        SourceFile("0.parquet", 1, "", None, (RowGroup(3, 40, 7), RowGroup(5, 60, 11))),
        SourceFile("1.parquet", 1, "", None, (RowGroup(2, 30, 13), RowGroup(1, 250, 90), RowGroup(4, 20, 5))),
    ]
    groups = [(1, 1), (1, 2), (0, 1), (0, 0), (1, 0)]
    assert lay_out_shards(footers, groups, 100) == (
        PlannedShard(0, ((1, 1),), rows=1, text_bytes=250, stored_bytes=90),
        PlannedShard(1, ((1, 2), (0, 1)), rows=9, text_bytes=80, stored_bytes=16),
        PlannedShard(2, ((0, 0), (1, 0)), rows=5, text_bytes=70, stored_bytes=20),
    )


def test_without_row_groups_there_is_no_shard() -> None:
    assert order_row_groups(source([], []), "shuffled", 0) == []
    assert lay_out_shards(source([], []), [], 100) == ()


@given(st.lists(st.lists(st.integers(0, 100), max_size=8), max_size=5), st.integers(1, 300))
def test_shards_hold_every_row_group_once_and_in_order(files: list[list[int]], target: int) -> None:
    footers = source(*files)
    groups = order_row_groups(footers, "sequential", 0)
    shards = lay_out_shards(footers, groups, target)
    assert [member for shard in shards for member in shard.row_groups] == groups
    assert groups == [(f, g) for f, sizes in enumerate(files) for g in range(len(sizes))]
    for shard in shards:
        assert shard.text_bytes <= target or len(shard.row_groups) == 1
        assert shard.text_bytes == sum(files[f][g] for f, g in shard.row_groups)


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=30),
    st.floats(0.05, 5),
    st.integers(1, 5000),
    st.data(),
)
def test_the_rounds_meet_the_budget_and_waste_little(
    sizes: list[int], sampled_ratio: float, need: int, data: st.DataObject
) -> None:
    """Plays the rounds of the main job over shards whose true tokens the plan can only guess at."""
    shards = planned(sizes)
    true = [data.draw(st.integers(0, 2 * size)) for size in sizes]
    counts: list[ShardCount] = []

    def tokenize(ordinal: int, stop_after: int | None) -> ShardCount:
        # Reading stops at the end of a batch: here, as soon as the limit is reached.
        limit = true[ordinal] if stop_after is None else min(true[ordinal], stop_after)
        return ShardCount(ordinal, limit, rows=1, complete=limit == true[ordinal])

    counts += [tokenize(ordinal, None) for ordinal in sure_shards(shards, sampled_ratio, need)]
    known = usable_prefix(merge_counts(counts))
    counts += [tokenize(*task) for task in next_shards(shards, known, sampled_ratio, need)]
    known = usable_prefix(merge_counts(counts))
    steps = 0
    while tasks := next_shards(shards, known, sampled_ratio, need):
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
    ("sizes", "tokens_per_byte", "need", "sure"),
    [
        # Three quarters of 400 are 300: three shards of 100 are needed, even if the ratio is off by a quarter.
        ([100] * 10, 1.0, 399, 2),
        ([100] * 10, 1.0, 400, 3),
        ([100] * 10, 1.0, 401, 3),
        ([200, 400, 10], 0.5, 400, 2),
        ([200, 402, 10], 0.5, 400, 1),
        # Not even the first is sure where a part of it may do.
        ([100] * 10, 1.0, 133, 0),
        ([100] * 10, 1.0, 134, 1),
        # A source that is too short, and one of no row groups.
        ([100] * 3, 1.0, 10_000, 3),
        ([], 1.0, 10, 0),
    ],
)
def test_the_first_round_takes_no_shard_that_may_be_too_many(
    sizes: Sequence[int], tokens_per_byte: float, need: int, sure: int
) -> None:
    assert sure_shards(planned(sizes), tokens_per_byte, need) == range(sure)


@pytest.mark.parametrize(
    ("need", "tasks"),
    [
        (40, [(0, 40)]),
        (100, [(0, 100)]),
        # The second makes good what the first may fall short of its 100: 5 of them.
        (101, [(0, None), (1, 6)]),
        (250, [(0, None), (1, None), (2, 60)]),
        (299, [(0, None), (1, None), (2, 109)]),
        (300, [(0, None), (1, None), (2, 110)]),
        (301, [(0, None), (1, None), (2, None), (3, 16)]),
        # The source may not have as many: all of it is read.
        (501, [(0, None), (1, None), (2, None), (3, None), (4, None)]),
    ],
)
def test_shards_are_read_whole_up_to_the_one_that_ends_the_budget(
    need: int, tasks: list[tuple[int, int | None]]
) -> None:
    """By the sampled ratio, as nothing is counted yet: five shards of 100 tokens, or of 95 if it is off."""
    assert next_shards(planned([200] * 5), [], 0.5, need) == tasks


@pytest.mark.parametrize(
    ("sizes", "tokens_per_byte", "need", "stop_after"),
    [
        ([98, 100], 1.0, 150, 57),  # 56.9
        ([102, 100], 1.0, 150, 53),  # 53.1
        ([90, 100], 0.01, 1, 1),  # 0.145: it stops at a token, not before it has any
    ],
)
def test_the_last_shard_stops_at_a_whole_number_of_tokens(
    sizes: Sequence[int], tokens_per_byte: float, need: int, stop_after: int
) -> None:
    assert next_shards(planned(sizes), [], tokens_per_byte, need) == [(0, None), (1, stop_after)]


@pytest.mark.parametrize(
    ("counts", "need", "tasks"),
    [
        # 150 missing, and 50 in a shard by what was measured: the third ends it, and makes good 5 of the 100 before.
        ([ShardCount(0, 50)], 200, [(1, None), (2, None), (3, 55)]),
        ([ShardCount(0, 50), ShardCount(1, 70)], 200, [(2, None), (3, 23)]),
        # Where a shard was cut short it is read anew, and its tokens, which are no whole shard's, measure nothing.
        ([ShardCount(0, 50), ShardCount(1, 30, complete=False)], 200, [(1, None), (2, None), (3, 55)]),
        ([ShardCount(0, 50), ShardCount(1, 70), ShardCount(2, 10, complete=False)], 200, [(2, None), (3, 23)]),
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
    assert next_shards(planned([100] * 5), counts, 9.9, need) == tasks


def test_shards_without_text_measure_nothing() -> None:
    """BOS and EOS make tokens of rows whose text takes no bytes."""
    assert next_shards(planned([0, 100]), [ShardCount(0, 5)], 1.0, 45) == [(1, 40)]
