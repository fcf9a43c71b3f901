"""Counts the tokens of parquet sources. It only counts: no ids are kept, and no BOS or EOS is added."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import apache_beam as beam

from transforms.dataset_plan import PlanDatasets
from transforms.dataset_spec import DatasetSpec
from transforms.encoder_pool import borrow_encoder
from transforms.json_coder import register_json_coder
from transforms.parquet_source import read_texts
from transforms.shard_plan import ShardTask


@register_json_coder
@dataclasses.dataclass(frozen=True)
class TextCount:
    """Documents, their tokens and their UTF-8 bytes, and how many rows were left out."""

    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    skipped: int = 0

    def __add__(self, other: TextCount) -> TextCount:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return TextCount(*(a + b for a, b in pairs))


class SumTextCounts(beam.CombineFn):
    """Adds `TextCount`s."""

    def create_accumulator(self) -> TextCount:
        return TextCount()

    def add_input(self, accumulator: TextCount, count: TextCount) -> TextCount:
        return accumulator + count

    def merge_accumulators(self, accumulators: Iterable[TextCount]) -> TextCount:
        return sum(accumulators, TextCount())

    def extract_output(self, accumulator: TextCount) -> TextCount:
        return accumulator


class _CountRowGroup(beam.DoFn):
    def __init__(self, specs: Mapping[str, DatasetSpec]) -> None:
        self._specs = specs

    def process(self, task: ShardTask) -> Iterator[tuple[str, TextCount]]:
        spec = self._specs[task.dataset]
        with borrow_encoder(spec.tokenizer, task.engine) as encoder:
            for path, group in task.row_groups:
                for _, batch in read_texts(path, [group], spec.text_column):
                    tokens = len(encoder.encode(batch.texts).ids)
                    skipped = sum(batch.skipped.values())
                    yield task.dataset, TextCount(len(batch.texts), tokens, batch.text_bytes, skipped)


class CountTokens(beam.PTransform):
    """Names of datasets in, (name, TextCount) of all of their source out.

    Args:
        specs: the datasets to count, by name.
    """

    def __init__(self, specs: Mapping[str, DatasetSpec]) -> None:
        super().__init__()
        self._specs = dict(specs)

    def expand(self, names: beam.PCollection[str]) -> beam.PCollection[tuple[str, TextCount]]:
        return (
            names
            | "Plan" >> PlanDatasets(self._specs)
            | "Shards" >> beam.FlatMapTuple(lambda _, plan: [plan.task(shard.ordinal, None) for shard in plan.shards])
            | "SpreadShards" >> beam.Reshuffle()
            | "Count" >> beam.ParDo(_CountRowGroup(self._specs)).with_output_types(tuple[str, TextCount])
            | "Sum" >> beam.CombinePerKey(SumTextCounts())
        )
