"""Holds the files of left-out rows of a dataset against its manifest."""

from __future__ import annotations

import dataclasses
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from transforms.coders import register_json_coder
from transforms.dataset.findings import FileCheck, Finding, held_against
from transforms.dataset.manifest import Manifest
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.files.untrusted import check_regular
from transforms.parquet.shard import ParquetRows
from transforms.texts import LEFT_OUT_SCHEMA

SCHEMA = pa.schema([("file", pa.string()), ("row_group", pa.int64()), *LEFT_OUT_SCHEMA])
"""Where the row was (the path as the config writes it, and the row's number in its row group, from 0), why it was left
out (`null`, `empty`, `not_text` or `too_long`), and the bytes of its text column."""


def quarantine_folder(folder: str) -> str:
    """Where the rows that the dataset in `folder` left out lie; no pattern of shard names matches anything there."""
    return posixpath.join(folder, "_quarantine")


def quarantine_name(ordinal: int) -> str:
    """The file in that folder of the rows that a shard, by its place in the plan, left out."""
    return f"bad-rows-{ordinal:05d}.parquet"


def quarantine_problems(folder: str, manifest: Manifest) -> list[str]:
    """The faults of the files of left-out rows as manifest and folder show them, before any is read."""
    problems = []
    entries = manifest.quarantine
    sizes = dict(list_files(quarantine_folder(folder), "*"))
    named = {posixpath.join(folder, entry.file) for entry in entries}
    problems += [f"{path}: missing" for path in sorted(named - sizes.keys())]
    problems += [f"{path}: not in the manifest" for path in sorted(sizes.keys() - named)]
    if len(named) < len(entries):
        problems.append(f"{folder}: a file of rows in quarantine stands twice in the manifest")
    if manifest.config["dataset"].get("on_bad_rows") == "quarantine":
        rows: Counter[str] = Counter()
        for entry in entries:
            rows.update(entry.rows)
        skipped = {reason: count for reason, count in manifest.skipped.items() if count}
        if dict(rows) != skipped:
            problems.append(f"{folder}: {dict(sorted(rows.items()))} rows in quarantine, and {skipped} were left out")
    elif entries:
        problems.append(f"{folder}: rows in quarantine, and its config keeps none")
    return problems


@register_json_coder
@dataclasses.dataclass(frozen=True)
class QuarantineCheck:
    """One file of left-out rows, and its dataset's manifest about it."""

    path: str
    rows: Mapping[str, int]
    size: int
    sha256: str


def quarantine_checks(folder: str, manifest: Manifest) -> Iterator[QuarantineCheck]:
    """The checks of each file of left-out rows of a dataset."""
    for entry in manifest.quarantine:
        yield QuarantineCheck(posixpath.join(folder, entry.file), entry.rows, entry.bytes, entry.sha256)


def quarantine_file_problems(check: QuarantineCheck) -> list[str]:
    """The faults of one file of left-out rows: its size, checksum and rows by reason. Empty if it is sound."""
    if not storage.exists(check.path):
        return []  # `quarantine_problems` has said so
    problems: list[str] = []
    rows: Counter[str] = Counter()
    try:
        check_regular(check.path, within=posixpath.dirname(posixpath.dirname(check.path)))
        with (
            held_against(FileCheck(check.path, check.size, check.sha256)) as (local, problems),
            ParquetRows(local) as held,
        ):
            for table in held.between(0, len(held)):
                if not table.schema.equals(SCHEMA):
                    return [*problems, f"{check.path}: has other columns than a quarantine"]
                counted = pc.value_counts(table["reason"]).to_pylist()
                rows.update({entry["values"]: entry["counts"] for entry in counted})
    except BroetchenError as error:
        return [*problems, str(error)]
    if dict(rows) != dict(check.rows):
        problems.append(f"{check.path}: rows {dict(sorted(rows.items()))}, not {dict(check.rows)}")
    return problems


class _VerifyQuarantine(beam.DoFn):
    def process(self, check: QuarantineCheck) -> Iterator[Finding]:
        yield from (Finding("problem", text) for text in quarantine_file_problems(check))


@beam.typehints.with_input_types(QuarantineCheck)
@beam.typehints.with_output_types(Finding)
class VerifyQuarantine(beam.PTransform[beam.PCollection[QuarantineCheck], beam.PCollection[Finding]]):
    """PCollection[QuarantineCheck] in, PCollection[Finding] out: a problem for each thing that is wrong.

    Example:
        >>> import apache_beam as beam
        >>> with beam.Pipeline() as pipeline:
        ...     problems = (
        ...         pipeline
        ...         | beam.Create([QuarantineCheck("no/such/file.parquet", {"null": 1}, 9, "ab")])
        ...         | VerifyQuarantine()
        ...         | beam.combiners.Count.Globally()
        ...         | beam.Map(print)
        ...     )
        0
    """

    def expand(self, checks: beam.PCollection[QuarantineCheck]) -> beam.PCollection[Finding]:
        return (
            checks
            | "SpreadQuarantine" >> beam.Reshuffle()
            | "VerifyQuarantine" >> beam.ParDo(_VerifyQuarantine()).with_output_types(Finding)
        )
