"""How records of a built dataset are shown: text, ids and origin, of which nothing acts on the terminal."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console

from beam_pipelines.console.terminal import print_as_is
from beam_pipelines.jobs.show import ShownRecord
from beam_pipelines.jobs.step import ShownPart
from transforms.dataset.trace import range_columns

_PLACE = ("file", "row_group", "row")


def print_records(console: Console, records: Iterable[ShownRecord], *, as_json: bool = False) -> None:
    """Prints records one below the other, or all as one JSON list."""
    if as_json:
        # Values for which JSON has no type, such as times, become text.
        rows = [dataclasses.asdict(record) for record in records]
        print_as_is(console, json.dumps(rows, indent=1, default=str))
        return
    for number, record in enumerate(records):
        print_as_is(console, "\n".join([*([""] if number else []), *_lines(record)]))


def print_parts(console: Console, parts: Iterable[ShownPart], *, as_json: bool = False) -> None:
    """Prints the documents of a step, sequence by sequence, or all as one JSON list."""
    if as_json:
        rows = [dataclasses.asdict(part) for part in parts]
        print_as_is(console, json.dumps(rows, indent=1, default=str))
        return
    for number, (sequence, of_sequence) in enumerate(itertools.groupby(parts, key=lambda part: part.sequence)):
        lines = [""] if number else []
        for index, part in enumerate(of_sequence):
            if not index:
                lines.append(f"step {part.step:,}, sequence {sequence:,} (row {part.row:,}): {part.dataset}")
            lines += _part_lines(part)
        print_as_is(console, "\n".join(lines))


def _part_lines(part: ShownPart) -> Iterator[str]:
    yield (
        f"  from place {part.position:,}: record {part.record:,} (record {part.record_of_shard:,} of {part.shard}), "
        f"tokens {part.first_token:,} to {part.last_token:,}"
    )
    if part.origin is not None:
        yield from (f"  {line}" for line in _origin(part.origin))


def _lines(record: ShownRecord) -> Iterator[str]:
    tokens = "" if record.tokens is None else f", {record.tokens:,} tokens"
    yield (
        f"{record.dataset} {record.split}, record {record.record:,} "
        f"(record {record.record_of_shard:,} of {record.shard}{tokens})"
    )
    if record.origin is None:
        yield "  from: not known, since the dataset has no trace"
    else:
        yield from _origin(record.origin)
    if record.ids is not None:
        yield f"  ids: {' '.join(map(str, record.ids))}"
    yield ""
    yield record.text


def _origin(origin: Any) -> Iterator[str]:
    file, row_group, row = (origin.get(name) for name in _PLACE)
    unit, (first, last) = next(
        (unit, names)
        for unit, names in (("characters", range_columns(is_text=True)), ("tokens", range_columns(is_text=False)))
        if names[0] in origin or unit == "tokens"
    )
    part = f"{unit} {origin.get(first)} to {origin.get(last)}"
    yield f"  from: {file}, row group {row_group}, row {row}, {part} of the document"
    for name, value in origin.items():
        if name not in (*_PLACE, first, last):
            # On one line each: values of a source must not look like ours.
            yield f"  {name}: {' '.join(str(value).split())}"
