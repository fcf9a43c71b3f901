"""Looks records of a built dataset up: their text and ids, and where in the source their documents stand."""

from __future__ import annotations

import dataclasses
import itertools
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transforms.dataset.manifest import SplitEntry
from transforms.dataset.splits import BuiltDataset, open_dataset
from transforms.dataset.trace import RECORD, find_records, origin_of
from transforms.errors import BroetchenError, UsageError


@dataclasses.dataclass(frozen=True)
class ShownRecord:
    """A record of a built dataset.

    Attributes:
        record: its number in the split, from 0.
        record_of_shard: its number in `shard`, the file that it is in.
        tokens: how many ids it has; None where it is text that was not encoded.
        ids: of a record of ids, BOS and EOS included, or those of its text; None where they were not asked for.
        origin: its values in the trace, by column; None where the dataset has no trace.
    """

    dataset: str
    split: str
    record: int
    shard: str
    record_of_shard: int
    tokens: int | None
    text: str
    ids: tuple[int, ...] | None
    origin: Mapping[str, Any] | None


def show(
    uri: str, *, split: str = "train", record: int = 0, number: int = 1, with_ids: bool = False
) -> Iterator[ShownRecord]:
    """Records of a split, one after the other.

    Args:
        uri: of the dataset's folder.
        record: the number of the first in the split, from 0.
        number: how many; fewer where the split ends before.
        with_ids: whether the ids are wanted.

    Raises:
        UsageError: several datasets lie there, or there is no such split or record.
        BroetchenError: no dataset is there, or a shard, its trace or the tokenizer is missing or damaged.
    """
    with open_dataset(uri) as dataset:
        if split not in dataset:
            raise UsageError(f"--split {split}: {dataset.folder} has no such split; it has {', '.join(dataset)}")
        records = len(dataset[split])
        if record >= records:
            held = f"records 0 to {records - 1:,}" if records else "no records"
            raise UsageError(f"--record {record}: {split} of {dataset.folder} has {held}")
        for wanted in range(record, min(records, record + number)):
            place = _place(dataset.manifest.splits[split], wanted)
            shard = dataset.manifest.splits[split].shards[place[0]]
            yield _shown_record(dataset, split, place, origin_of(dataset.folder, shard, place[1]), with_ids)


def next_record(uri: str, shown: ShownRecord) -> int | None:
    """The number of the record behind one that was shown; None where its split ends there."""
    after = shown.record + 1
    with open_dataset(uri) as dataset:
        return after if after < dataset.manifest.splits[shown.split].records else None


def show_documents(
    uri: str,
    value: str,
    *,
    column: str | None = None,
    split: str | None = None,
    number: int | None = None,
    with_ids: bool = False,
) -> Iterator[ShownRecord]:
    """The records of the documents that have a value in a column of the source that the trace has.

    Args:
        uri: of the dataset's folder.
        value: as text.
        column: the one to look in; by default in all that the trace has of the source.
        split: the one to look in; by default in all.
        number: how many of them; by default all.
        with_ids: whether the ids are wanted.

    Raises:
        UsageError: several datasets lie there, or there is no such split or column.
        BroetchenError: no dataset is there, it has no trace or none with columns of the source, or no such document;
            or a file is missing or damaged.
    """
    with open_dataset(uri) as dataset:
        if split is not None and split not in dataset:
            raise UsageError(f"--split {split}: {dataset.folder} has no such split; it has {', '.join(dataset)}")
        columns = _columns(dataset, column)
        shown = 0
        for name, place, origin in itertools.islice(_found(dataset, split, columns, value), number):
            shown += 1
            yield _shown_record(dataset, name, place, origin, with_ids)
        if not shown:
            where = f"{split} of {dataset.folder}" if split else dataset.folder
            raise BroetchenError(f"{where}: no record whose {' or '.join(columns)} is {value!r}")


def _found(
    dataset: BuiltDataset, split: str | None, columns: Sequence[str], value: str
) -> Iterator[tuple[str, tuple[int, int], dict[str, Any]]]:
    """(split, place, values in the trace) of each record."""
    for name in [split] if split is not None else dataset:
        for number, shard in enumerate(dataset.manifest.splits[name].shards):
            for record, origin in find_records(dataset.folder, shard, columns, value):
                yield name, (number, record), origin


def _columns(dataset: BuiltDataset, column: str | None) -> Sequence[str]:
    if not dataset.manifest.is_traced:
        raise BroetchenError(
            f"{dataset.folder}: has no trace to find documents by; show records by --record, or build it with "
            "records: {trace: true} and trace_columns"
        )
    columns = dataset.manifest.trace_columns
    if not columns:
        raise BroetchenError(
            f"{dataset.folder}: its trace has no columns of the source to find documents by; show records by --record, "
            "or build it with trace_columns"
        )
    if column is None:
        return columns
    if column not in columns:
        raise UsageError(f"--column {column}: not in the trace of {dataset.folder}, which has {', '.join(columns)}")
    return [column]


def _place(split: SplitEntry, record: int) -> tuple[int, int]:
    """(number of the shard, number of the record in it)."""
    ends = list(itertools.accumulate(shard.records for shard in split.shards))
    number = next(index for index, end in enumerate(ends) if record < end)
    return number, record - (ends[number - 1] if number else 0)


def _shown_record(
    dataset: BuiltDataset, split: str, place: tuple[int, int], origin: Mapping[str, Any] | None, with_ids: bool
) -> ShownRecord:
    shards = dataset.manifest.splits[split].shards
    record = sum(shard.records for shard in shards[: place[0]]) + place[1]
    content = dataset[split][record]
    ids = None
    if with_ids or dataset.manifest.holds_ids:
        ids = tuple(content.ids.tolist())
    return ShownRecord(
        dataset=dataset.manifest.dataset,
        split=split,
        record=record,
        shard=posixpath.basename(shards[place[0]].file),
        record_of_shard=place[1],
        tokens=len(ids) if ids is not None else None,
        text=content.text,
        ids=ids if with_ids else None,
        origin=None if origin is None else {name: value for name, value in origin.items() if name != RECORD},
    )
