"""The exact-budget arithmetic, and the PTransform on it."""

import itertools
import random

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from transforms.budget.token_budget import (
    DatasetCut,
    MergeShardCounts,
    ShardCount,
    ShardSlice,
    TokenBudget,
    cut_shards,
    merge_counts,
    usable_prefix,
)
from transforms.coders import from_json, to_json
from transforms.errors import BroetchenError

sizes = st.lists(st.integers(0, 50), max_size=20)
split_budgets = st.lists(st.integers(0, 300), min_size=1, max_size=3).map(
    lambda budgets: dict(zip(("train", "eval", "test"), budgets, strict=False))
)


@given(sizes, split_budgets)
def test_splits_are_the_next_tokens_of_the_stream(shards: list[int], budgets: dict[str, int]) -> None:
    stream = [(ordinal, position) for ordinal, size in enumerate(shards) for position in range(size)]
    start = 0
    for cut in cut_shards(enumerate(shards), budgets):
        expected = stream[start : start + budgets[cut.split]]
        taken = [
            (piece.ordinal, position) for piece in cut.slices for position in range(piece.skip, piece.skip + piece.take)
        ]
        assert taken == expected
        assert cut.tokens == len(expected)
        assert cut.missing == budgets[cut.split] - len(expected)
        assert all(piece.take > 0 for piece in cut.slices)
        start += len(expected)


@given(sizes, st.randoms(use_true_random=False))
def test_merging_does_not_depend_on_order_or_grouping(shards: list[int], rng: random.Random) -> None:
    counts = [ShardCount(ordinal, tokens) for ordinal, tokens in enumerate(shards)]
    # A retry gives a count twice; a shard that was read further gives two different ones.
    counts += [ShardCount(count.ordinal, count.tokens // 2, complete=False) for count in counts[::3]] + counts[::2]
    shuffled = rng.sample(counts, len(counts))
    combine = MergeShardCounts()
    accumulators = [combine.create_accumulator()]
    for count in shuffled:
        if rng.random() < 0.3:
            accumulators.append(combine.create_accumulator())
        accumulators[-1] = combine.add_input(accumulators[-1], count)
    merged = combine.extract_output(combine.merge_accumulators(rng.sample(accumulators, len(accumulators))))
    assert merged == merge_counts(counts)
    assert [count.tokens for count in merged] == shards


def test_a_gap_or_a_shard_cut_short_ends_the_stream() -> None:
    whole, short = ShardCount(0, 5), ShardCount(1, 5, complete=False)
    assert usable_prefix([whole, ShardCount(2, 5)]) == (whole,)
    assert usable_prefix([whole, short, ShardCount(2, 5)]) == (whole, short)
    assert usable_prefix([ShardCount(1, 5)]) == ()


def test_counts_and_cuts_survive_the_wire() -> None:
    count = ShardCount(3, 7, 2, 2, 40, 99, "ab", 1, complete=False, skipped={"null": 2})
    cut = DatasetCut((count,), cut_shards([(3, 7)], {"train": 5, "eval": 1}))
    assert from_json(DatasetCut, to_json(cut)) == cut


@pytest.mark.parametrize("seed", range(3))
def test_the_transform_cuts_every_dataset_whatever_the_order_of_its_counts(seed: int) -> None:
    counts = [(name, ShardCount(ordinal, 10)) for name, ordinal in itertools.product("ab", range(5))]
    random.Random(seed).shuffle(counts)
    with TestPipeline() as pipeline:
        cuts = (
            pipeline
            | beam.Create(counts)
            | TokenBudget({"a": {"train": 25, "eval": 5}, "b": {"train": 60}})
            | beam.MapTuple(lambda name, cut: (name, [(s.split, s.slices[-1], s.missing) for s in cut.splits]))
        )
        expected = [
            ("a", [("train", ShardSlice(2, 0, 5), 0), ("eval", ShardSlice(2, 5, 5), 0)]),
            ("b", [("train", ShardSlice(4, 0, 10), 10)]),
        ]
        assert_that(cuts, equal_to(expected))


def test_a_dataset_without_a_budget_is_an_error() -> None:
    with pytest.raises(BroetchenError, match="'b' has counts but no budget"), TestPipeline() as pipeline:
        _ = pipeline | beam.Create([("b", ShardCount(0, 1))]) | TokenBudget({"a": {"train": 1}})
