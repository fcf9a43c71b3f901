"""Shards from footers, and what to tokenize in each round."""

from collections.abc import Sequence

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


def test_shuffling_is_a_permutation_that_the_seed_decides() -> None:
    footers = source([1] * 20, [1] * 20)
    ordered = order_row_groups(footers, "sequential", 0)
    shuffled = order_row_groups(footers, "shuffled", 7)
    assert sorted(shuffled) == ordered
    assert shuffled != ordered
    assert shuffled != order_row_groups(footers, "shuffled", 8)
    # The permutation is part of the format: it may never change.
    assert shuffled[:5] == SHUFFLED_BY_SEVEN


SHUFFLED_BY_SEVEN = [(1, 19), (1, 9), (0, 19), (0, 7), (1, 4)]


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
        return ShardCount(ordinal, limit, row_groups=1, complete=limit == true[ordinal])

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


def test_nothing_more_is_read_once_the_budget_is_met() -> None:
    shards = planned([100] * 10)
    assert next_shards(shards, [ShardCount(0, 50)], 0.5, 50) == []
    # 150 missing, 50 in a shard by what was measured: the third ends it.
    assert [ordinal for ordinal, _ in next_shards(shards, [ShardCount(0, 50)], 9.9, 200)] == [1, 2, 3]


def test_the_first_round_takes_no_shard_that_may_be_too_many() -> None:
    shards = planned([100] * 10)
    assert sure_shards(shards, 1.0, 1000) == range(7)
    assert sure_shards(shards, 1.0, 100) == range(0)
    assert sure_shards(shards, 0.01, 1000) == range(10)
