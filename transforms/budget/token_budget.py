"""Exact token budgets from count summaries: counts in, cuts out.

A dataset is a sequence of shards, and each shard a known number of tokens. A budget for each split, in order, then
says where every split begins and ends: which shards belong to it whole, and how many tokens it keeps of the shards at
its two ends. Only the counts travel through the pipeline, one small summary a shard; the tokens stay where they are.

The arithmetic is that of TFDS's `core/splits.py` (absolute slices over shard lengths), in tokens instead of examples.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.coders import TupleSequenceCoder
from apache_beam.pvalue import AsDict
from apache_beam.transforms.display import DisplayDataItem

from transforms.budget.shard_count import TAKEN_OVER as TAKEN_OVER
from transforms.budget.shard_count import ShardCount as ShardCount
from transforms.coders import JsonCoder, register_json_coder
from transforms.errors import BroetchenError, UsageError

register_json_coder(ShardCount)


@dataclasses.dataclass(frozen=True)
class ShardSlice:
    """`take` tokens of shard `ordinal`, after the first `skip`."""

    ordinal: int
    skip: int
    take: int


@register_json_coder
@dataclasses.dataclass(frozen=True)
class SplitCut:
    """The tokens that a split takes from the shards.

    `tokens` is the sum over `slices`: the budget, less `missing` where the shards did not hold enough.
    """

    split: str
    budget: int
    slices: tuple[ShardSlice, ...]
    missing: int

    @property
    def tokens(self) -> int:
        return self.budget - self.missing


@register_json_coder
@dataclasses.dataclass(frozen=True)
class DatasetCut:
    """The cuts of all splits of a dataset, and the counts that they were made from, in the order of the shards."""

    counts: tuple[ShardCount, ...]
    splits: tuple[SplitCut, ...]

    @property
    def missing(self) -> int:
        return sum(split.missing for split in self.splits)


def cut_shards(shards: Iterable[tuple[int, int]], budgets: Mapping[str, int]) -> tuple[SplitCut, ...]:
    """Gives each split its tokens, one split right after the other.

    Args:
        shards: (ordinal, tokens) in order.
        budgets: tokens of each split, in the order in which the splits lie in the stream.

    Returns:
        one `SplitCut` a split. Its slices are consecutive and not empty; together the splits' slices cover the
        stream's first `sum(budgets)` tokens, each once.

    Raises:
        UsageError: a budget is no whole number, or negative.

    >>> cut_shards([(0, 10), (1, 10)], {"train": 12, "eval": 5})[1].slices
    (ShardSlice(ordinal=1, skip=2, take=5),)
    """
    check_budgets(budgets)
    cuts = []
    remaining = iter(shards)
    ordinal, start, end = -1, 0, 0
    for split, budget in budgets.items():
        slices, missing = [], budget
        while missing:
            if start == end:
                following = next(remaining, None)
                if following is None:
                    break
                ordinal, start, end = following[0], 0, following[1]
                continue
            take = min(missing, end - start)
            slices.append(ShardSlice(ordinal, start, take))
            start += take
            missing -= take
        cuts.append(SplitCut(split, budget, tuple(slices), missing))
    return tuple(cuts)


def check_budgets(budgets: Mapping[str, int]) -> None:
    """Checks that the budgets of splits are numbers of tokens.

    Raises:
        UsageError: one is no whole number, such as `1e9`, or negative.
    """
    for split, budget in budgets.items():
        if isinstance(budget, bool) or not isinstance(budget, numbers.Integral) or budget < 0:
            raise UsageError(f"the budget of {split} is {budget!r}; give it a whole number of tokens, 0 or more")


def merge_counts(counts: Iterable[ShardCount]) -> list[ShardCount]:
    """Counts by ordinal; of several for one shard (a retry, or a shard read further) the one that read most."""
    best: dict[int, ShardCount] = {}
    for count in counts:
        best[count.ordinal] = max(best.get(count.ordinal, count), count, key=_rank)
    return [best[ordinal] for ordinal in sorted(best)]


def _rank(count: ShardCount) -> tuple[object, ...]:
    # Checksum and attempt only make the choice independent of the order in which equal counts arrive.
    return *count.reach, count.file.sha256, count.attempt


def usable_prefix(counts: Sequence[ShardCount]) -> tuple[ShardCount, ...]:
    """The counts that form an unbroken stream: from shard 0 on, up to the first gap or the first shard cut short."""
    prefix: list[ShardCount] = []
    for count in counts:
        if count.ordinal != len(prefix):
            break
        prefix.append(count)
        if not count.complete:
            break
    return tuple(prefix)


def cut_dataset(counts: Iterable[ShardCount], budgets: Mapping[str, int]) -> DatasetCut:
    """The cut of a dataset: the tokens that `budgets` take of the unbroken stream at the beginning of `counts`."""
    stream = usable_prefix(list(counts))
    return DatasetCut(stream, cut_shards(((count.ordinal, count.tokens) for count in stream), budgets))


@beam.typehints.with_input_types(ShardCount)
@beam.typehints.with_output_types(list[ShardCount])
class MergeShardCounts(beam.CombineFn):
    """Merges `ShardCount`s into a list in shard order. Associative and commutative; one entry a shard.

    >>> counts = [ShardCount(1, tokens=5), ShardCount(0, tokens=7), ShardCount(1, tokens=5)]
    >>> [(count.ordinal, count.tokens) for count in MergeShardCounts().apply(counts)]
    [(0, 7), (1, 5)]
    """

    def create_accumulator(self) -> tuple[ShardCount, ...]:
        return ()

    def add_input(self, accumulator: tuple[ShardCount, ...], count: ShardCount) -> tuple[ShardCount, ...]:
        return (*accumulator, count)

    def merge_accumulators(self, accumulators: Iterable[tuple[ShardCount, ...]]) -> tuple[ShardCount, ...]:
        return tuple(count for accumulator in accumulators for count in accumulator)

    def extract_output(self, accumulator: tuple[ShardCount, ...]) -> list[ShardCount]:
        return merge_counts(accumulator)

    def get_accumulator_coder(self) -> TupleSequenceCoder:
        return TupleSequenceCoder(JsonCoder(ShardCount))


@beam.typehints.with_input_types(tuple[str, ShardCount])
@beam.typehints.with_output_types(tuple[str, DatasetCut])
class TokenBudget(beam.PTransform[beam.PCollection[tuple[str, ShardCount]], beam.PCollection[tuple[str, DatasetCut]]]):
    """Counts in, cuts out: where each dataset's splits begin and end, to the token.

    Input: (dataset, ShardCount) for each shard. Output: (dataset, DatasetCut) for each dataset of `budgets` that has
    at least one shard. A dataset that is too short comes out with `missing` set; the caller decides what to do then.
    A cut holds the counts of all shards, half a kilobyte each; `BuildDatasets`, whose datasets may have 100,000, keeps
    them in blocks (`transforms.recipe.blocks`) and cuts where it publishes.

    Example:
        >>> import apache_beam as beam
        >>> with beam.Pipeline() as pipeline:
        ...     cuts = (
        ...         pipeline
        ...         | beam.Create([("wiki", ShardCount(0, tokens=70)), ("wiki", ShardCount(1, tokens=70))])
        ...         | TokenBudget({"wiki": {"train": 100, "eval": 10}})
        ...         | beam.MapTuple(lambda name, cut: print(name, [s.slices[-1] for s in cut.splits]))
        ...     )
        wiki [ShardSlice(ordinal=1, skip=0, take=30), ShardSlice(ordinal=1, skip=30, take=10)]

    Args:
        budgets: tokens by dataset and split, in the order in which the splits lie in the stream; or a side input.

    Raises:
        UsageError: a budget is no whole number, or negative; of a side input, when run.
        BroetchenError: (when run) a dataset arrives that has no budget.
    """

    def __init__(self, budgets: Mapping[str, Mapping[str, int]] | AsDict) -> None:
        super().__init__()
        if not isinstance(budgets, AsDict):
            for splits in budgets.values():
                check_budgets(splits)
        self._budgets = budgets

    def expand(self, counts: beam.PCollection[tuple[str, ShardCount]]) -> beam.PCollection[tuple[str, DatasetCut]]:
        return (
            counts
            | "MergeCounts" >> beam.CombinePerKey(MergeShardCounts())
            | "Cut" >> beam.ParDo(_CutDataset(), self._budgets).with_output_types(tuple[str, DatasetCut])
        )

    def display_data(self) -> dict[str, Any]:
        """The arguments of this step that the runner's pages show."""
        if isinstance(self._budgets, AsDict):
            return {}
        tokens = sum(int(budget) for splits in self._budgets.values() for budget in splits.values())
        return {
            "datasets": DisplayDataItem(len(self._budgets), label="Datasets"),
            "tokens": DisplayDataItem(tokens, label="Tokens of all budgets"),
        }


class _CutDataset(beam.DoFn):
    def process(
        self, element: tuple[str, Sequence[ShardCount]], budgets: Mapping[str, Mapping[str, int]]
    ) -> Iterator[tuple[str, DatasetCut]]:
        dataset, counts = element
        if dataset not in budgets:
            raise BroetchenError(f"dataset {dataset!r} has counts but no budget; give TokenBudget one for it")
        yield dataset, cut_dataset(counts, budgets[dataset])
