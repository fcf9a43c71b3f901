"""Source rows that are no documents end in a failed build, or a file of them, with reasons, at the dataset.

A shard whose rows are all documents has no such file. Of the others it lies with the unfinished work, and at the end
under `<dataset>/_quarantine/`, where no pattern of shard names finds it; readers that walk through folders pass over
names with an underscore, as Hive, Spark and Arrow do. A dataset's files hold exactly the rows that `skipped` of its
manifest counts.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

from transforms.budget.token_budget import ShardCount
from transforms.building.placing import put_in_place
from transforms.building.work_folder import WorkFolder, new_attempt
from transforms.checksums import FileMark
from transforms.dataset.quarantine import SCHEMA, quarantine_folder, quarantine_name
from transforms.encoding.long_documents import LARGEST_PIECE
from transforms.errors import BroetchenError
from transforms.files.staged import OptionalFile
from transforms.parquet.shard import ParquetRows, ParquetShardWriter
from transforms.quantities import format_size
from transforms.recipe.spec import DatasetSpec
from transforms.texts import EMPTY, NOT_TEXT, NULL, TOO_LONG

_WHY = {
    NULL: "is null",
    EMPTY: "is empty",
    NOT_TEXT: "is not valid UTF-8",
    TOO_LONG: f"holds more than {format_size(LARGEST_PIECE)} in one piece that cannot be cut",
}
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
        f"{_WHY[first['reason']]}{shown}; fix the file, or set on_bad_rows to skip or quarantine"
    )


class QuarantineWriter(OptionalFile[ParquetShardWriter]):
    """Writes the rows that a shard leaves out to one file, which is there, whole, after `close`, if there are any.

    A context manager, which leaves nothing behind after an exception.

    Raises:
        BroetchenError: the file cannot be written.
    """

    def __init__(self, spec: DatasetSpec, path: str) -> None:
        super().__init__()
        self._spec, self._path = spec, path

    def write(self, path: str, row_group: int, left_out: pa.Table) -> None:
        """Appends rows of one row group, by `LEFT_OUT_SCHEMA`."""
        if not len(left_out):
            return
        if self._file is None:
            self._file = ParquetShardWriter(self._path)
        where = [pa.repeat(self._spec.shown_path(path), len(left_out)), pa.repeat(row_group, len(left_out))]
        self._file.write(pa.table([*where, *left_out.columns], schema=SCHEMA))


@dataclasses.dataclass(frozen=True)
class PublishedQuarantine:
    """A file of left-out rows under its final name, and how many it has, by reason; see `QuarantineEntry`."""

    file: str
    rows: Mapping[str, int]
    mark: FileMark


def publish_quarantine(spec: DatasetSpec, work: WorkFolder, count: ShardCount, rows: int) -> PublishedQuarantine | None:
    """Puts the first rows that a shard left out under their final name; None where there are none.

    Args:
        rows: of those that it left out, how many lie before the end of the dataset.

    Raises:
        BroetchenError: the file is gone, or the output cannot be written.
    """
    if count.quarantine is None or not rows:
        return None
    final = posixpath.join(quarantine_folder(spec.folder), quarantine_name(count.ordinal))
    source, mark = work.quarantine(count.ordinal, count.attempt), count.quarantine
    if rows == sum(count.skipped.values()):
        put_in_place(source, final, mark)
        return _published(spec, final, count.skipped, mark)
    rewritten = posixpath.join(work.path, f"{posixpath.basename(final)}-{new_attempt()}")
    kept: Counter[str] = Counter()
    with ParquetRows(source) as held, ParquetShardWriter(rewritten) as writer:
        for table in held.between(0, rows):
            writer.write(table)
            writer.end_row_group()
            kept.update(table["reason"].to_pylist())
    written = writer.close()
    put_in_place(rewritten, final, written.mark)
    return _published(spec, final, kept, written.mark)


def _published(spec: DatasetSpec, final: str, rows: Mapping[str, int], mark: FileMark) -> PublishedQuarantine:
    by_reason = {reason: count for reason, count in sorted(rows.items()) if count}
    return PublishedQuarantine(posixpath.relpath(final, spec.folder), by_reason, mark)
