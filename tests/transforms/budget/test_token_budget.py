"""The exact-budget arithmetic, and the PTransform on it."""

from __future__ import annotations

import dataclasses
import itertools
import random
import re
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.pvalue import AsDict
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from transforms.budget.token_budget import (
    DatasetCut,
    MergeShardCounts,
    ShardCount,
    ShardSlice,
    SplitCut,
    TokenBudget,
    cut_shards,
    merge_counts,
    usable_prefix,
)
from transforms.checksums import FileMark
from transforms.coders import from_json, to_json
from transforms.errors import BroetchenError, UsageError

A, B = FileMark(1, "a"), FileMark(1, "b")

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


@pytest.mark.parametrize(
    ("train", "train_slices", "eval_slices"),
    [
        (9, [(0, 0, 9)], [(0, 9, 1), (2, 0, 10)]),
        (10, [(0, 0, 10)], [(2, 0, 10)]),
        (11, [(0, 0, 10), (2, 0, 1)], [(2, 1, 9)]),
    ],
)
def test_a_split_ends_to_the_token_at_the_end_of_a_shard(
    train: int, train_slices: list[tuple[int, int, int]], eval_slices: list[tuple[int, int, int]]
) -> None:
    cuts = cut_shards([(0, 10), (1, 0), (2, 10)], {"train": train, "eval": 20 - train})
    assert [cut.slices for cut in cuts] == [
        tuple(itertools.starmap(ShardSlice, slices)) for slices in (train_slices, eval_slices)
    ]


def test_shards_go_by_their_own_numbers_and_splits_by_their_names() -> None:
    assert cut_shards([(7, 3), (5, 4)], {"b": 4, "a": 0, "c": 9}) == (
        SplitCut("b", 4, (ShardSlice(7, 0, 3), ShardSlice(5, 0, 1)), 0),
        SplitCut("a", 0, (), 0),
        SplitCut("c", 9, (ShardSlice(5, 1, 3),), 6),
    )


def test_no_shard_is_asked_for_that_no_split_needs() -> None:
    shards = iter([(0, 4), (1, 4), (2, 4)])
    cut_shards(shards, {"train": 5, "eval": 3})
    assert list(shards) == [(2, 4)]


def test_a_cut_says_what_it_holds_and_what_is_missing() -> None:
    splits = cut_shards([(0, 10)], {"train": 7, "eval": 5, "test": 4})
    assert [split.tokens for split in splits] == [7, 3, 0]
    assert DatasetCut((), splits).missing == 6
    assert DatasetCut((), splits[:1]).missing == 0


@pytest.mark.parametrize(
    ("less", "more"),
    [
        # All of it, though fewer tokens were counted.
        (ShardCount(0, 9, rows=9, complete=False, file=B, attempt="b"), ShardCount(0, 5, rows=1, file=A, attempt="a")),
        (ShardCount(0, 9, rows=1, file=B, attempt="b"), ShardCount(0, 5, rows=2, file=A, attempt="a")),
        (ShardCount(0, 5, rows=1, file=B, attempt="b"), ShardCount(0, 9, rows=1, file=A, attempt="a")),
        (ShardCount(0, 5, rows=1, file=A, attempt="b"), ShardCount(0, 5, rows=1, file=B, attempt="a")),
        (ShardCount(0, 5, rows=1, file=A, attempt="a"), ShardCount(0, 5, rows=1, file=A, attempt="b")),
    ],
    ids=["complete", "rows", "tokens", "checksum", "attempt"],
)
def test_of_two_counts_of_a_shard_the_one_that_read_more_is_kept(less: ShardCount, more: ShardCount) -> None:
    other = ShardCount(1, 1)
    assert merge_counts([other, less, more]) == merge_counts([more, less, other]) == [more, other]


@pytest.mark.parametrize(
    ("less", "more"),
    [
        (ShardCount(0, 9, rows=9, complete=False), ShardCount(0, 5, rows=1)),
        (ShardCount(0, 9, rows=1), ShardCount(0, 5, rows=2)),
        (ShardCount(0, 5, rows=1), ShardCount(0, 9, rows=1)),
    ],
    ids=["complete", "rows", "tokens"],
)
def test_a_count_holds_more_only_where_more_of_the_shard_was_read(less: ShardCount, more: ShardCount) -> None:
    """Such a count replaces another in the work folder: checksum and attempt, which decide above, do not here."""
    assert more.holds_more(less)
    assert not less.holds_more(more)
    equal = dataclasses.replace(less, file=FileMark(1, "z"), attempt="z")
    assert not equal.holds_more(less)
    assert not less.holds_more(equal)


def test_a_gap_or_a_shard_cut_short_ends_the_stream() -> None:
    whole, short = ShardCount(0, 5), ShardCount(1, 5, complete=False)
    assert usable_prefix([whole, ShardCount(2, 5)]) == (whole,)
    assert usable_prefix([whole, short, ShardCount(2, 5)]) == (whole, short)
    assert usable_prefix([ShardCount(1, 5)]) == ()
    assert usable_prefix([whole, ShardCount(1, 0), ShardCount(2, 5)]) == (whole, ShardCount(1, 0), ShardCount(2, 5))
    assert usable_prefix([]) == ()


def test_a_count_is_of_a_whole_shard_without_bad_rows_unless_it_says_otherwise() -> None:
    """So is one that lacks what was not counted when it was written."""
    written_out = ShardCount(
        ordinal=0,
        tokens=7,
        documents=0,
        without_tokens=0,
        records=0,
        rows=0,
        text_bytes=0,
        complete=True,
        skipped={},
        attempt="",
        engine="",
        source="",
        file=FileMark(0, "", ""),
        row_file=FileMark(0, "", ""),
        quarantine=None,
    )
    assert usable_prefix([ShardCount(0, 7)]) == (written_out,)
    assert usable_prefix([from_json(ShardCount, '{"ordinal": 0, "tokens": 7}')]) == (written_out,)


def test_counts_are_json_while_they_are_merged() -> None:
    """As everywhere else: what Beam keeps of them meanwhile is no pickle."""
    coder = MergeShardCounts().get_accumulator_coder()
    counts = (ShardCount(0, 7, skipped={"null": 2}), ShardCount(1, 5, complete=False))
    encoded = coder.encode(counts)
    assert b'"ordinal":1' in encoded
    assert b'"skipped":{"null":2}' in encoded
    assert coder.decode(encoded) == counts


def test_counts_and_cuts_survive_the_wire() -> None:
    count = ShardCount(
        ordinal=3,
        tokens=7,
        documents=2,
        without_tokens=1,
        records=2,
        rows=4,
        text_bytes=40,
        complete=False,
        skipped={"null": 2},
        attempt="0123456789ab",
        engine="gigatoken 0.10.0",
        source="89ab",
        file=FileMark(99, "ab", "AAAAAA=="),
        row_file=FileMark(13, "cd", "AAAAAQ=="),
        quarantine=FileMark(5, "ef", "AAAAAg=="),
    )
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


def test_only_an_unbroken_stream_of_shards_is_cut() -> None:
    """Shard 2 is not there yet, so what lies behind it has no known place; budgets may be a side input."""
    counts = [("a", ShardCount(3, 10)), ("a", ShardCount(1, 10)), ("a", ShardCount(0, 4)), ("a", ShardCount(1, 10))]
    with TestPipeline() as pipeline:
        budgets = pipeline | "Budgets" >> beam.Create([("a", {"train": 6, "eval": 9})])
        cuts = pipeline | "Counts" >> beam.Create(counts) | TokenBudget(AsDict(budgets))
        train = SplitCut("train", 6, (ShardSlice(0, 0, 4), ShardSlice(1, 0, 2)), 0)
        evaluation = SplitCut("eval", 9, (ShardSlice(1, 2, 8),), 1)
        assert_that(cuts, equal_to([("a", DatasetCut((ShardCount(0, 4), ShardCount(1, 10)), (train, evaluation)))]))


def test_a_dataset_without_a_budget_is_an_error() -> None:
    with pytest.raises(BroetchenError, match="'b' has counts but no budget"), TestPipeline() as pipeline:
        _ = pipeline | beam.Create([("b", ShardCount(0, 1))]) | TokenBudget({"a": {"train": 1}})


@pytest.mark.parametrize("budget", [-1, 5.0, 1e9, True, "5"])
def test_a_budget_is_a_whole_number_of_tokens(budget: Any) -> None:
    message = re.escape(f"the budget of eval is {budget!r}; give it a whole number of tokens, 0 or more")
    with pytest.raises(UsageError, match=message):
        cut_shards([(0, 10)], {"train": 5, "eval": budget})
    with pytest.raises(UsageError, match=message):
        TokenBudget({"a": {"train": 5, "eval": budget}})


def test_a_budget_may_be_of_any_type_of_whole_numbers() -> None:
    budget: Any = np.int64(5)
    assert cut_shards([(0, 10)], {"train": budget}) == cut_shards([(0, 10)], {"train": 5})
