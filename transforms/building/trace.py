"""Writes the traces of shards (`transforms.dataset.trace`): as a shard is tokenized, and for a shard at a cut again.

Where row groups end in a trace follows from its rows alone, and so do its bytes, with one version of pyarrow: however
the source was read, and whether it is a shard's own trace or a part of one.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms.budget.text_cut import DocumentSpan
from transforms.budget.token_budget import ShardSlice
from transforms.building.cut import PublishTask
from transforms.building.placing import put_in_place
from transforms.building.work_folder import WorkFolder, new_attempt
from transforms.checksums import FileMark
from transforms.dataset.trace import RECORD, range_columns, trace_name, trace_schema
from transforms.errors import BroetchenError
from transforms.files.staged import OptionalFile
from transforms.parquet.columns import decode_schema
from transforms.parquet.shard import ParquetRows, ParquetShardWriter
from transforms.recipe.spec import DatasetSpec
from transforms.texts import TextBatch

_ROW_GROUP_BYTES = 4 << 20
# Few tables of many rows take less time than many of few.
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 4096, 1 << 20
# Of a list, a text or a struct beside its content.
_NESTING_BYTES = 4

Numbers = npt.NDArray[np.int64]


def document_parts(lengths: Numbers, max_tokens: int) -> tuple[Numbers, Numbers, Numbers]:
    """The records that documents are cut into, as `transforms.arrayrecord.records.record_bounds` cuts them.

    Args:
        lengths: int64 [documents], in tokens.

    Returns:
        number of the document, first token and last token (exclusive) of each record: int64 [records].

    >>> [part.tolist() for part in document_parts(np.array([5, 0, 2]), 2)]
    [[0, 0, 0, 2], [0, 2, 4, 0], [2, 4, 5, 2]]
    """
    pieces = -(-lengths // max_tokens)
    documents = np.repeat(np.arange(len(lengths)), pieces)
    first = (np.arange(len(documents)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * max_tokens
    return documents, first, np.minimum(first + max_tokens, lengths[documents])


def tokens_between(rows: pa.Table, before: int, piece: ShardSlice) -> pa.Table:
    """The rows of a trace whose records hold tokens of a piece, told of as far as they do.

    Args:
        before: tokens of the shard before these records.
    """
    first, last = range_columns(is_text=False)
    starts, stops = (rows[name].to_numpy() for name in (first, last))
    ends = before + np.cumsum(stops - starts)
    begins = ends - (stops - starts)
    kept = np.flatnonzero((ends > piece.skip) & (begins < piece.skip + piece.take))
    starts = starts + np.maximum(0, piece.skip - begins)
    stops = stops - np.maximum(0, ends - (piece.skip + piece.take))
    return _with_range(rows, first, starts, last, stops).take(kept)


def part_of_document(row: pa.Table, span: DocumentSpan) -> pa.Table:
    """The row of a document of which a part alone is written."""
    first, last = range_columns(is_text=True)
    stop = span.stop if span.stop is not None else row[last][0].as_py()
    return _with_range(row, first, np.array([span.start]), last, np.array([stop]))


def _with_range(rows: pa.Table, first: str, starts: Numbers, last: str, stops: Numbers) -> pa.Table:
    for name, values in ((first, starts), (last, stops)):
        index = rows.schema.get_field_index(name)
        rows = rows.set_column(index, rows.schema.field(index), pa.array(values, pa.int64()))
    return rows


def row_bytes(column: pa.Array) -> Numbers:
    """About the bytes that each value of a column takes, int64 [rows]; the same however the column is sliced.

    >>> row_bytes(pa.array(["abc", None])).tolist(), row_bytes(pa.array([[1, 2], []])).tolist()
    ([7, 4], [20, 4])
    """
    kind = column.type
    if pa.types.is_struct(kind):
        return sum((row_bytes(field) for field in column.flatten()), np.full(len(column), _NESTING_BYTES, np.int64))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        ends = np.cumsum(_numbers(pc.list_value_length(column)))
        within = np.concatenate([[0], np.cumsum(row_bytes(column.flatten()))])
        return np.diff(within[ends], prepend=0) + _NESTING_BYTES
    if pa.types.is_null(kind):
        return np.zeros(len(column), np.int64)
    try:
        return np.full(len(column), -(-kind.bit_width // 8), np.int64)
    except ValueError:  # its values have lengths of their own
        return _numbers(pc.binary_length(column)) + _NESTING_BYTES


def _numbers(lengths: pa.Array) -> Numbers:
    return pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64)


class TraceFile(ParquetShardWriter):
    """Writes rows to one trace, which is there, whole, after `close`. A context manager, which closes it at the end.

    Args:
        columns: of the source, that are in it.

    Raises:
        BroetchenError: the file cannot be written.
    """

    def __init__(self, path: str, columns: Iterable[pa.Field], *, is_text: bool) -> None:
        super().__init__(path)
        self._schema = trace_schema(columns, is_text=is_text)
        self._given: list[pa.Table] = []
        self._given_rows = self._given_bytes = 0
        self._group = [self._schema.empty_table()]
        self._numbered = self._group_bytes = 0

    def write(self, rows: pa.Table) -> None:
        """Appends rows, which are numbered here; a column of numbers that they have is replaced.

        All tables have the columns of the first, in its types.
        """
        self._given.append(rows)
        self._given_rows += len(rows)
        self._given_bytes += rows.nbytes
        if self._given_rows >= _ROWS_AT_ONCE or self._given_bytes >= _BYTES_AT_ONCE:
            self._take_up()

    def _take_up(self) -> None:
        """Puts the rows that were given into row groups, and writes those that are full."""
        if not self._given:
            return
        rows, self._given = pa.concat_tables(self._given), []
        self._given_rows = self._given_bytes = 0
        numbers = pa.array(np.arange(self._numbered, self._numbered + len(rows)))
        columns = [numbers if field.name == RECORD else rows[field.name].cast(field.type) for field in self._schema]
        numbered = pa.table(columns, schema=self._schema).combine_chunks()
        self._numbered += len(rows)
        sizes = [row_bytes(chunk) for column in numbered.columns for chunk in column.chunks]
        ends = self._group_bytes + np.cumsum(sum(sizes, np.zeros(len(rows), np.int64)))
        while len(ends) and ends[-1] >= _ROW_GROUP_BYTES:
            kept = int(np.searchsorted(ends, _ROW_GROUP_BYTES)) + 1
            self._group.append(numbered.slice(0, kept))
            self._write_group()
            numbered, ends = numbered.slice(kept), ends[kept:] - ends[kept - 1]
            self._group_bytes = 0
        self._group.append(numbered)
        self._group_bytes = int(ends[-1]) if len(ends) else self._group_bytes

    def _finish(self) -> None:
        self._take_up()
        if self._group and (sum(map(len, self._group)) or not self._numbered):
            self._write_group()
        super()._finish()

    def _write_group(self) -> None:
        super().write(pa.concat_tables(self._group).combine_chunks())
        self.end_row_group()
        self._group = []


class TraceWriter(OptionalFile[TraceFile]):
    """Writes the trace of a shard while it is tokenized; nothing where its dataset has none. A context manager.

    Args:
        columns: the schema of the columns read of the source, as `transforms.parquet.columns.encode_schema` has it.

    Raises:
        BroetchenError: the file cannot be written.
    """

    def __init__(self, spec: DatasetSpec, path: str, columns: str) -> None:
        super().__init__()
        self._spec = spec
        if spec.trace:
            self._file = TraceFile(path, chosen_fields(spec, columns), is_text=spec.records.is_text)

    def write(self, place: tuple[str, int], rows: npt.NDArray[np.integer], batch: TextBatch, lengths: Numbers) -> None:
        """Appends the records of a batch of documents.

        Args:
            place: (path, row group) of the source.
            rows: [documents], the number of each in the row group.
            lengths: int64 [documents], in tokens, BOS and EOS included.
        """
        # A batch of rows that a filter leaves out unread has no columns.
        if self._file is None or not len(lengths):
            return
        spec = self._spec
        if spec.records.is_text:
            documents = np.arange(len(lengths))
            first, last = np.zeros(len(lengths), np.int64), _numbers(pc.utf8_length(batch.texts))
        else:
            documents, first, last = document_parts(lengths, spec.records.max_tokens)
        path, row_group = place
        names = range_columns(is_text=spec.records.is_text)
        columns = {
            "file": pa.repeat(spec.shown_path(path), len(documents)),
            "row_group": pa.repeat(row_group, len(documents)),
            "row": rows[documents],
            names[0]: first,
            names[1]: last,
        }
        if spec.trace_columns:
            assert batch.table is not None
            chosen = batch.table.select(spec.trace_columns)
            chosen = chosen.take(documents) if len(documents) != len(lengths) or not lengths.all() else chosen
            columns |= dict(zip(spec.trace_columns, chosen.columns, strict=True))
        self._file.write(pa.table(columns))


def chosen_fields(spec: DatasetSpec, columns: str) -> list[pa.Field]:
    """The columns of the source that a dataset's traces have, in the config's order; `columns` as in `TraceWriter`."""
    if not spec.trace_columns:
        return []
    schema = decode_schema(columns)
    return [schema.field(name) for name in spec.trace_columns]


def publish_trace(spec: DatasetSpec, work: WorkFolder, task: PublishTask, records: int) -> FileMark | None:
    """Puts the trace of a shard that is published under its final name; None where the dataset has none.

    Args:
        records: of the shard, as it is published.

    Raises:
        BroetchenError: the trace is gone or damaged, or the output cannot be written.
    """
    count = task.count
    if count.trace is None:
        return None
    source, final = work.trace(count.ordinal, count.attempt), posixpath.join(spec.folder, trace_name(task.file))
    if task.whole:
        put_in_place(source, final, count.trace)
        return count.trace
    rewritten = posixpath.join(work.path, f"{posixpath.basename(final)}-{new_attempt()}")
    fields = chosen_fields(spec, task.columns)
    with ParquetRows(source) as held, TraceFile(rewritten, fields, is_text=spec.records.is_text) as writer:
        parts = _parts_by_tokens(held, task.piece) if task.piece is not None else _parts_by_spans(held, task.spans)
        for rows in parts:
            writer.write(rows)
        written = writer.close()
    if written.records != records:
        raise BroetchenError(
            f"{source}: tells of {written.records:,} of {records:,} records, so it was damaged after it was written; "
            f"delete the folder {work.path} and build again"
        )
    put_in_place(rewritten, final, written.mark)
    return written.mark


def _parts_by_tokens(held: ParquetRows, piece: ShardSlice) -> Iterator[pa.Table]:
    first, last = range_columns(is_text=False)
    before = 0
    for rows in held.between(0, len(held)):
        yield tokens_between(rows, before, piece)
        before += pc.sum(pc.subtract(rows[last], rows[first])).as_py() or 0
        if before >= piece.skip + piece.take:
            return


def _parts_by_spans(held: ParquetRows, spans: Sequence[DocumentSpan]) -> Iterator[pa.Table]:
    for span in spans:
        for rows in held.between(span.first, span.last):
            yield rows if span.whole else part_of_document(rows, span)
