"""What becomes of source rows that hold no text: a failed build, or a file of them beside the dataset, with reasons.

A shard whose rows are all documents has no such file. Of the others it lies with the unfinished work, and at the end
under `<dataset>/_quarantine/`, where no pattern of shard names finds it; readers that walk through folders pass over
names with an underscore, as Hive, Spark and Arrow do. A dataset's files hold exactly the rows that `skipped` of its
manifest counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from transforms.budget.token_budget import ShardCount
from transforms.building.work_folder import WorkFolder, quarantine_folder, quarantine_name
from transforms.coders import register_json_coder
from transforms.dataset.manifest import Manifest, QuarantineEntry
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.errors import explained
from transforms.files.staged import WrittenShard
from transforms.parquet.shard import ParquetRows, ParquetShardWriter
from transforms.recipe.spec import DatasetSpec
from transforms.texts import EMPTY, LEFT_OUT_SCHEMA, NOT_TEXT, NULL

SCHEMA = pa.schema([("file", pa.string()), ("row_group", pa.int64()), *LEFT_OUT_SCHEMA])
"""Where the row was (the path as the config writes it, and the row's number in its row group, from 0), why it was left
out (`null`, `empty` or `not_text`), and the bytes of its text column."""

_WHY = {NULL: "is null", EMPTY: "is empty", NOT_TEXT: "is not valid UTF-8"}
_RENAMES_AT_A_TIME = 8
_SHOWN_BYTES = 32


def check_row_is_text(path: str, row_group: int, text_column: str, left_out: pa.Table) -> None:
    """Checks that no row was left out.

    Args:
        left_out: rows of one row group that were, by `LEFT_OUT_SCHEMA`.

    Raises:
        BroetchenError: one was; the message names the first.
    """
    if not len(left_out):
        return
    first = left_out.slice(0, 1).to_pylist()[0]
    value = first["value"] or b""
    shown = f": {value[:_SHOWN_BYTES]!r}{'…' if len(value) > _SHOWN_BYTES else ''}" if value else ""
    raise BroetchenError(
        f"{path}: row group {row_group}, row {first['row']} (from 0): column {text_column!r} "
        f"{_WHY[first['reason']]}{shown}; mend the file, or leave such rows out by on_bad_rows: skip, or quarantine"
    )


class QuarantineWriter:
    """Writes the rows that a shard leaves out to one file, which is there, whole, after `close`, if there are any.

    A context manager, which leaves nothing behind after an exception.

    Raises:
        BroetchenError: the file cannot be written.
    """

    def __init__(self, spec: DatasetSpec, path: str) -> None:
        self._spec, self._path = spec, path
        self._stack = contextlib.ExitStack()
        self._writer: ParquetShardWriter | None = None

    def write(self, path: str, row_group: int, left_out: pa.Table) -> None:
        """Appends rows of one row group, by `LEFT_OUT_SCHEMA`."""
        if not len(left_out):
            return
        if self._writer is None:
            self._writer = self._stack.enter_context(ParquetShardWriter(self._path))
        where = [pa.repeat(self._spec.shown_path(path), len(left_out)), pa.repeat(row_group, len(left_out))]
        self._writer.write(pa.table([*where, *left_out.columns], schema=SCHEMA))

    def close(self) -> WrittenShard | None:
        """What was written, or None where no row was left out."""
        return self._writer.close() if self._writer else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)


def publish_quarantine(spec: DatasetSpec, work: WorkFolder, counts: Iterable[ShardCount]) -> list[QuarantineEntry]:
    """Puts the rows that shards left out under their final names, and removes what older builds left there.

    Raises:
        BroetchenError: a file is gone, or the output cannot be written.
    """
    held = [count for count in counts if count.quarantine_bytes]
    folder = quarantine_folder(spec.folder)
    if not held:
        storage.delete_tree(folder)
        return []

    def publish(count: ShardCount) -> QuarantineEntry:
        final = posixpath.join(folder, quarantine_name(count.ordinal))
        storage.rename(work.quarantine(count.ordinal), final, size=count.quarantine_bytes)
        return QuarantineEntry(
            file=posixpath.relpath(final, spec.folder),
            rows={reason: rows for reason, rows in sorted(count.skipped.items()) if rows},
            bytes=count.quarantine_bytes,
            sha256=count.quarantine_sha256,
        )

    with ThreadPoolExecutor(_RENAMES_AT_A_TIME, thread_name_prefix="quarantine") as pool:
        entries = list(pool.map(publish, held))
    wanted = {posixpath.join(spec.folder, entry.file) for entry in entries}
    storage.delete([path for path, _ in storage.list_files(posixpath.join(folder, "*")) if path not in wanted])
    storage.delete_temporary(folder)
    return entries


def quarantine_problems(folder: str, manifest: Manifest) -> list[str]:
    """What is wrong with the files of left-out rows as manifest and folder show them, before any is read."""
    problems = []
    entries = manifest.quarantine
    found = dict(storage.list_files(posixpath.join(quarantine_folder(folder), "*")))
    named = {posixpath.join(folder, entry.file) for entry in entries}
    problems += [f"{path}: missing" for path in sorted(named - found.keys())]
    problems += [f"{path}: not in the manifest" for path in sorted(found.keys() - named)]
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
    """One file of left-out rows, and what its dataset's manifest says of it."""

    path: str
    rows: Mapping[str, int]
    size: int
    sha256: str


def quarantine_checks(folder: str, manifest: Manifest) -> Iterator[QuarantineCheck]:
    """What to check of each file of left-out rows of a dataset."""
    for entry in manifest.quarantine:
        yield QuarantineCheck(posixpath.join(folder, entry.file), entry.rows, entry.bytes, entry.sha256)


def quarantine_file_problems(check: QuarantineCheck) -> list[str]:
    """What is wrong with one file of left-out rows: its size, checksum and rows by reason. Empty if it is sound."""
    if not storage.exists(check.path):
        return []  # `quarantine_problems` has said so
    problems = []
    rows: Counter[str] = Counter()
    try:
        with storage.local_copy(check.path) as local:
            with explained(check.path, "read"), open(local, "rb") as handle:
                digest, size = hashlib.file_digest(handle, "sha256").hexdigest(), handle.tell()
            if size != check.size:
                problems.append(f"{check.path}: {size:,} bytes, not {check.size:,}")
            if digest != check.sha256:
                problems.append(f"{check.path}: sha256 {digest}, not {check.sha256}")
            with ParquetRows(local) as held:
                for table in held.between(0, len(held)):
                    if not table.schema.equals(SCHEMA):
                        return [*problems, f"{check.path}: has other columns than a quarantine"]
                    counted = pc.value_counts(table["reason"]).to_pylist()
                    rows.update({one["values"]: one["counts"] for one in counted})
    except BroetchenError as error:
        return [*problems, str(error)]
    if dict(rows) != dict(check.rows):
        problems.append(f"{check.path}: rows {dict(sorted(rows.items()))}, not {dict(check.rows)}")
    return problems


class _VerifyQuarantine(beam.DoFn):
    def process(self, check: QuarantineCheck) -> Iterator[str]:
        yield from quarantine_file_problems(check)


class VerifyQuarantine(beam.PTransform[beam.PCollection[QuarantineCheck], beam.PCollection[str]]):
    """PCollection[QuarantineCheck] in, PCollection[str] out: a sentence for each thing that is wrong.

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

    def expand(self, checks: beam.PCollection[QuarantineCheck]) -> beam.PCollection[str]:
        return (
            checks
            | "SpreadQuarantine" >> beam.Reshuffle()
            | "VerifyQuarantine" >> beam.ParDo(_VerifyQuarantine()).with_output_types(str)
        )
