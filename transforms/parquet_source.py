"""Parquet as a source of documents: what lies in the files, and their text, batch by batch.

Footers tell everything that planning needs (rows and bytes of each row group) for a few kilobytes a file. Reading is
by row group and streams: memory is bounded by one batch, not by the row group. Of a file on the hub the column chunks
that are wanted are fetched, the next pieces while the last ones are worked on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics

from transforms import files, hub_path
from transforms.errors import BroetchenError, listed, one_line
from transforms.json_coder import register_json_coder
from transforms.read_ahead import ReadAhead

# Enough text for a batch to keep an encoder busy, and small enough to stay in a processor's cache.
BATCH_TEXT_BYTES = 1 << 20
_MAX_BATCH_ROWS = 8192
_TAIL_BYTES = 64 << 10
_READ_BUFFER_BYTES = 1 << 20
# Where larger pieces are fetched ahead; a reader that stops early has fetched a buffer in vain.
_FETCHING_BUFFER_BYTES = 128 << 10
_MAGIC = b"PAR1"
_ENCRYPTED_MAGIC = b"PARE"
_ENCRYPTED = "is encrypted parquet, which cannot be read here; decrypt it first"
# After the footer of a file with encrypted columns: a nonce and a tag
# (https://parquet.apache.org/docs/file-format/data-pages/encryption/, "Encrypted Footer", "Plaintext Footer Mode").
_SIGNATURE_BYTES = 28

_SHOWN_CHARACTERS = 100
# That the number of an entry of a dictionary takes at most in a data page, with what describes the page.
_INDEX_BYTES = 8

NULL, EMPTY, NOT_TEXT = "null", "empty", "not_text"

LEFT_OUT_SCHEMA = pa.schema([("row", pa.int64()), ("reason", pa.string()), ("value", pa.large_binary())])
"""Rows that are no documents: their number in the row group, from 0, why, and the bytes of the text column."""
_NOTHING_LEFT_OUT = LEFT_OUT_SCHEMA.empty_table()


@dataclasses.dataclass(frozen=True)
class RowGroup:
    """One row group of one file: `text_bytes` is the text column's size before compression, in bytes."""

    rows: int
    text_bytes: int
    stored_bytes: int


@register_json_coder
@dataclasses.dataclass(frozen=True)
class SourceFile:
    """A parquet file as its footer describes it.

    Attributes:
        path: as it is opened.
        size: in bytes.
        footer_sha256: of the footer's bytes, which hold the sizes, offsets and statistics of all that is in the file.
            Together with `size` it identifies the content without reading it.
        checksum: the object store's own, where there is one.
    """

    path: str
    size: int
    footer_sha256: str
    checksum: str | None
    row_groups: tuple[RowGroup, ...]


@dataclasses.dataclass(frozen=True)
class TextBatch:
    """Documents of consecutive rows, and how many rows were left out, by reason.

    `texts` has no nulls, no empty strings, and is valid UTF-8. `table` holds the same rows with all their columns, the
    text as a string, where they were asked for. `stored_bytes` is not 0 in the first batch of a row group: the bytes
    that are read for it, of the wanted columns as the file stores them. `left_out` are the rows that `skipped` counts,
    by `LEFT_OUT_SCHEMA` and in their order, where those were asked for.
    """

    texts: pa.LargeStringArray
    skipped: Mapping[str, int]
    table: pa.Table | None = None
    stored_bytes: int = 0
    left_out: pa.Table | None = None

    @property
    def rows(self) -> int:
        return len(self.texts) + sum(self.skipped.values())

    @property
    def text_bytes(self) -> int:
        return int(pc.sum(pc.binary_length(self.texts)).as_py() or 0)


def expand_sources(patterns: Iterable[str]) -> list[tuple[str, int]]:
    """The files that `patterns` name, as (path, size in bytes), in the order of their paths, each once.

    Raises:
        BroetchenError: a pattern matches nothing.
    """
    found: dict[str, int] = {}
    for pattern in patterns:
        matches = files.list_files(pattern)
        if not matches:
            raise BroetchenError(f"{pattern}: no file matches; check the path, and that you may read it")
        found.update(matches)
    return sorted(found.items())


def read_footer(path: str, size: int, text_column: str) -> SourceFile:
    """Reads a file's footer, and nothing else of it.

    Raises:
        BroetchenError: the file cannot be opened, is not parquet or is cut short, or has no such text column.
    """
    with _open(path) as handle:
        tail = _read_tail(handle, size, _TAIL_BYTES)
        if size >= 12 and tail[-4:] == _ENCRYPTED_MAGIC:
            raise BroetchenError(f"{path}: {_ENCRYPTED}")
        if size < 12 or tail[-4:] != _MAGIC:
            raise BroetchenError(f"{path}: not a parquet file, or cut short ({size:,} bytes); fetch it again")
        footer_size = int.from_bytes(tail[-8:-4], "little") + 8
        if footer_size > size - 4:
            raise BroetchenError(f"{path}: the parquet footer is damaged (it claims {footer_size:,} bytes of {size:,})")
        if footer_size > len(tail):
            tail = _read_tail(handle, size, footer_size)
    footer = tail[-footer_size:]
    try:
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + footer))
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        raise BroetchenError(f"{path}: the parquet footer cannot be read: {one_line(error)}") from error
    if footer_size - 8 - metadata.serialized_size == _SIGNATURE_BYTES:
        # To look at the metadata of a column that is encrypted would abort the process (pyarrow 25).
        raise BroetchenError(f"{path}: {_ENCRYPTED}")
    _check_text_column(path, schema, text_column)
    groups = tuple(_row_groups(metadata, text_column))
    for index, group in enumerate(groups):
        _check_row_group(path, size - footer_size, index, metadata.row_group(index), group)
    return SourceFile(
        path=path,
        size=size,
        footer_sha256=hashlib.sha256(footer).hexdigest(),
        checksum=None if files.is_local(path) else str(FileSystems.checksum(path)),
        row_groups=groups,
    )


def _check_row_group(path: str, end: int, index: int, group: pq.RowGroupMetaData, facts: RowGroup) -> None:
    first, last = _extent(group)
    # A row group without rows has no pages, and pyarrow writes 0 for where they begin.
    outside = facts.rows > 0 and first < len(_MAGIC)
    if min(facts.rows, facts.text_bytes, facts.stored_bytes) < 0 or outside or last > end:
        raise BroetchenError(
            f"{path}: the parquet footer is damaged (row group {index} lies at {first:,} to {last:,} of {end:,} bytes, "
            f"with {facts.rows:,} rows); fetch it again"
        )


def _read_tail(handle: Any, size: int, wanted: int) -> bytes:
    handle.seek(max(0, size - wanted))
    data: bytes = handle.read(wanted)
    return data


def _check_text_column(path: str, schema: pa.Schema, text_column: str) -> None:
    if text_column not in schema.names:
        raise BroetchenError(
            f"{path}: no column {text_column[:_SHOWN_CHARACTERS]!r}; the file has "
            f"{listed(schema.names, 20) or 'no columns'}: set text_column to one of them"
        )
    if schema.names.count(text_column) > 1:
        raise BroetchenError(
            f"{path}: has {schema.names.count(text_column)} columns {text_column[:_SHOWN_CHARACTERS]!r}, and nothing "
            "tells which one is meant; rename all but one"
        )
    kind = schema.field(text_column).type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(value) or pa.types.is_large_string(value) or _is_binary(value)):
        raise BroetchenError(f"{path}: column {text_column!r} is {kind}, not text; set text_column to a column of text")


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _row_groups(metadata: pq.FileMetaData, text_column: str) -> Iterator[RowGroup]:
    column = _leaf(metadata, text_column)
    for index in range(metadata.num_row_groups):
        yield _row_group(metadata, index, column)


def _row_group(metadata: pq.FileMetaData, index: int, leaf: int) -> RowGroup:
    group = metadata.row_group(index)
    chunk = group.column(leaf)
    return RowGroup(group.num_rows, chunk.total_uncompressed_size, chunk.total_compressed_size)


def _leaf(metadata: pq.FileMetaData, text_column: str) -> int:
    return _leaves(metadata).index(text_column)


def _leaves(metadata: pq.FileMetaData) -> list[str]:
    return [metadata.schema.column(i).path for i in range(metadata.num_columns)]


def _chunk(column: pq.ColumnChunkMetaData) -> tuple[int, int]:
    """Where a column chunk lies in its file, as (start, end) in bytes."""
    start = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset:
        start = min(start, column.dictionary_page_offset)
    return start, start + column.total_compressed_size


def _extent(group: pq.RowGroupMetaData) -> tuple[int, int]:
    """Where all of a row group lies in its file, as (start, end) in bytes."""
    chunks = [_chunk(group.column(column)) for column in range(group.num_columns)]
    return min(start for start, _ in chunks), max(end for _, end in chunks)


def read_texts(
    path: str, row_groups: Iterable[int], text_column: str, *, with_columns: bool = False, ahead: bool = True
) -> Iterator[tuple[int, TextBatch]]:
    """Streams the text column of some row groups, in the order given, or all columns.

    Args:
        ahead: whether to fetch the next pieces of a file on the hub meanwhile; not for who only looks at the beginning.

    Yields:
        (row group, batch), with batches of about `BATCH_TEXT_BYTES` of text.

    Raises:
        BroetchenError: the file is damaged; the message names the row group.
    """
    with _OpenedFile(path, list(row_groups), text_column, with_columns=with_columns, ahead=ahead) as opened:
        yield from opened.batches()


def read_files(
    row_groups: Sequence[tuple[str, int]],
    text_column: str,
    *,
    with_columns: bool = False,
    with_left_out: bool = False,
    planned: Sequence[tuple[int, RowGroup]] | None = None,
) -> Iterator[tuple[tuple[str, int], TextBatch]]:
    """Streams row groups of several files, as `read_texts` does; a file on the hub is opened while the last is read.

    Args:
        with_columns: whether to read all columns.
        with_left_out: whether to tell which rows were left out.
        planned: what each of the row groups was when it was planned: (size of its file in bytes, row group).

    Yields:
        ((path, row group), batch)

    Raises:
        BroetchenError: a file is damaged, or is not what was planned; the message names it and the row group.
    """
    expected = planned if planned is not None else [None] * len(row_groups)
    runs = [
        (path, [group for (_, group), _ in members], [facts for _, facts in members if facts is not None])
        for path, run in itertools.groupby(zip(row_groups, expected, strict=True), key=lambda member: member[0][0])
        for members in [list(run)]
    ]
    read_before = 0

    def open_run(number: int) -> _OpenedFile:
        path, groups, facts = runs[number]
        return _OpenedFile(
            path,
            groups,
            text_column,
            planned=facts,
            with_columns=with_columns,
            with_left_out=with_left_out,
            read_before=read_before,
        )

    with ThreadPoolExecutor(1, thread_name_prefix="open-next") as pool:
        following: Future[_OpenedFile] | None = None
        try:
            for number, (path, *_) in enumerate(runs):
                opened, following = following.result() if following else open_run(number), None
                with opened:
                    if number + 1 < len(runs) and _is_on_hub(runs[number + 1][0]):
                        following = pool.submit(open_run, number + 1)
                    for group, batch in opened.batches():
                        yield (path, group), batch
                    read_before += opened.stored_bytes
        finally:
            if following:
                # The reader has stopped: what may be wrong with the next file does not matter.
                with contextlib.suppress(Exception), following.result():
                    pass


class _OpenedFile:
    """A parquet file from which some row groups will be read; on the hub, its first pieces are being fetched."""

    def __init__(
        self,
        path: str,
        row_groups: Sequence[int],
        text_column: str,
        *,
        planned: Sequence[tuple[int, RowGroup]] = (),
        with_columns: bool,
        with_left_out: bool = False,
        ahead: bool = True,
        read_before: int = 0,
    ) -> None:
        self._path, self._row_groups = path, row_groups
        self._text_column, self._with_columns, self._with_left_out = text_column, with_columns, with_left_out
        self._handle = _open(path, read_before)
        fetches_ahead = isinstance(self._handle, ReadAhead)
        # Column chunks of several columns are read in turns, unless all of a row group is read before it is decoded:
        # then the next groups can be fetched meanwhile.
        whole_groups = fetches_ahead and ahead and with_columns
        try:
            # Pre-buffering holds all that is wanted of a row group in memory.
            buffer_size = _FETCHING_BUFFER_BYTES if fetches_ahead else _READ_BUFFER_BYTES
            open_parquet = functools.partial(
                pq.ParquetFile,
                self._handle,
                pre_buffer=whole_groups,
                buffer_size=buffer_size,
                # Where a writer has put some: not all have.
                page_checksum_verification=True,
            )
            self._parquet = open_parquet()
            metadata = self._parquet.metadata
            leaves = _leaves(metadata)
            if planned:
                self._check_planned(planned, leaves)
            elif text_column not in leaves or max(row_groups, default=-1) >= metadata.num_row_groups:
                raise OSError("it has changed since its footer was read; run it again, while nobody changes it")
            self._leaf = leaves.index(text_column)
            groups = [metadata.row_group(group) for group in row_groups]
            if any(_is_all_dictionary(group, self._leaf) for group in groups):
                self._parquet = open_parquet(metadata=metadata, read_dictionary=[text_column])
        except BaseException as error:
            self._handle.close()
            if isinstance(error, pa.ArrowException | OSError):
                raise BroetchenError(f"{path}: cannot be read as parquet: {one_line(error)}") from error
            raise
        self.stored_bytes = sum(map(self._stored_bytes, groups))
        if ahead and fetches_ahead:
            self._handle.plan(_extent(group) if whole_groups else _chunk(group.column(self._leaf)) for group in groups)

    def _check_planned(self, planned: Sequence[tuple[int, RowGroup]], leaves: Sequence[str]) -> None:
        """A source that has changed since would give a dataset that is not what its manifest says."""
        metadata = self._parquet.metadata
        self._handle.seek(0, os.SEEK_END)
        found_size = self._handle.tell()
        for group, (size, facts) in zip(self._row_groups, planned, strict=True):
            found = None
            if found_size == size and group < metadata.num_row_groups and self._text_column in leaves:
                found = _row_group(metadata, group, leaves.index(self._text_column))
            if found != facts:
                raise BroetchenError(
                    f"{self._path}: has changed since this build planned it ({size:,} bytes then, {found_size:,} now; "
                    f"row group {group} is another): run it again, while nobody changes the source"
                )

    def __enter__(self) -> _OpenedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def batches(self) -> Iterator[tuple[int, TextBatch]]:
        text_column = self._text_column
        wanted = None if self._with_columns else [text_column]
        for group in self._row_groups:
            metadata = self._parquet.metadata.row_group(group)
            rows, stored, read = _batch_rows(metadata, self._leaf), self._stored_bytes(metadata), 0
            try:
                batches = self._parquet.iter_batches(rows, [group], wanted, use_threads=False)
                for batch in itertools.chain.from_iterable(_in_small_parts(one, text_column) for one in batches):
                    texts = batch.column(batch.schema.get_field_index(text_column))
                    found = to_texts(
                        texts,
                        pa.table(batch) if self._with_columns else None,
                        text_column,
                        first_row=read if self._with_left_out else None,
                    )
                    yield group, dataclasses.replace(found, stored_bytes=stored)
                    stored, read = 0, read + len(texts)
                if read != metadata.num_rows:
                    raise OSError(f"it holds {read:,} rows, and by the footer {metadata.num_rows:,}")
            except (pa.ArrowException, OSError) as error:
                raise BroetchenError(
                    f"{self._path}: row group {group} cannot be read ({one_line(error)}); the file is damaged: fetch "
                    "it again"
                ) from error

    def _stored_bytes(self, group: pq.RowGroupMetaData) -> int:
        leaves = range(group.num_columns) if self._with_columns else [self._leaf]
        return sum(group.column(leaf).total_compressed_size for leaf in leaves)


def _is_all_dictionary(group: pq.RowGroupMetaData, leaf: int) -> bool:
    """Whether a column chunk is a dictionary and numbers of its entries: few bytes in the file can be much text."""
    column = group.column(leaf)
    if not column.has_dictionary_page or not column.dictionary_page_offset:
        return False
    dictionary = column.data_page_offset - column.dictionary_page_offset
    return bool(column.total_compressed_size - dictionary <= _INDEX_BYTES * max(1, group.num_rows))


def _in_small_parts(batch: pa.RecordBatch, text_column: str) -> Iterator[pa.RecordBatch]:
    """A batch in parts of about `BATCH_TEXT_BYTES` of text, where its text is a dictionary."""
    column = batch.column(batch.schema.get_field_index(text_column))
    if not pa.types.is_dictionary(column.type) or not len(column):
        yield batch
        return
    lengths = pc.fill_null(pc.take(pc.binary_length(column.dictionary), column.indices), 0)
    ends = np.cumsum(lengths.to_numpy(zero_copy_only=False), dtype=np.int64)
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + BATCH_TEXT_BYTES, side="right")))
        yield batch.slice(start, stop - start)
        start = stop


def _batch_rows(group: pq.RowGroupMetaData, leaf: int) -> int:
    mean = max(1, group.column(leaf).total_uncompressed_size // max(1, group.num_rows))
    return max(1, min(_MAX_BATCH_ROWS, BATCH_TEXT_BYTES // mean))


def _open_remote(path: str) -> Any:
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def _is_on_hub(path: str) -> bool:
    return FileSystems.get_scheme(path) == hub_path.SCHEME


def _open(path: str, read_before: int = 0) -> Any:
    try:
        # pyarrow opens local files natively, without the interpreter lock; Beam's file objects serve the others.
        if files.is_local(path):
            return pa.OSFile(path)
        if _is_on_hub(path):
            return ReadAhead(lambda: _open_remote(path), read_before)
        # Beam's handles of other stores fetch 16 MiB and more for any read: several at once fetch it many times.
        return _open_remote(path)
    except OSError as error:
        raise BroetchenError(f"{path}: cannot be opened: {error}") from error


def to_texts(
    column: pa.Array, table: pa.Table | None = None, text_column: str = "text", *, first_row: int | None = None
) -> TextBatch:
    """The documents of a column of strings or bytes, plain or dictionary-encoded.

    Rows that are null, empty, or not valid UTF-8 are left out and counted.

    Args:
        table: the rows with all their columns, if those are to be kept; the column is its `text_column`.
        first_row: the number of the column's first row, if the batch is to tell which rows were left out.
    """
    skipped: Counter[str] = Counter()
    left_out: list[pa.Table] = []
    rows = None if first_row is None else pa.array(range(first_row, first_row + len(column)), pa.int64())

    def keep(reason: str, kept: pa.Array) -> None:
        nonlocal column, table, rows
        skipped[reason] += len(column) - (pc.sum(kept).as_py() or 0)
        if rows is not None:
            left_out.append(_left_out(rows, column, reason, kept))
            rows = rows.filter(kept)
        column = column.filter(kept)
        table = table.filter(kept) if table is not None else None

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.null_count:
        keep(NULL, column.is_valid())
    try:
        column.validate(full=True)
        column = column.cast(pa.large_string())
    except pa.ArrowInvalid:
        raw = column.cast(pa.large_binary(), safe=False)
        keep(NOT_TEXT, pa.array([_is_utf8(value) for value in raw.to_pylist()], pa.bool_()))
        column = column.cast(pa.large_binary(), safe=False).cast(pa.large_string())
    lengths = pc.binary_length(column)
    if len(column) and pc.min(lengths).as_py() == 0:
        keep(EMPTY, pc.greater(lengths, 0))
    if table is not None:
        table = table.set_column(table.schema.get_field_index(text_column), text_column, column.cast(pa.string()))
    return TextBatch(
        column,
        dict(skipped),
        table,
        left_out=None if rows is None else pa.concat_tables([_NOTHING_LEFT_OUT, *left_out]).sort_by("row"),
    )


def _left_out(rows: pa.Array, column: pa.Array, reason: str, kept: pa.Array) -> pa.Table:
    left = pc.invert(kept)
    values = column.filter(left).cast(pa.large_binary(), safe=False)
    return pa.table([rows.filter(left), pa.repeat(reason, len(values)), values], schema=LEFT_OUT_SCHEMA)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


class _ReadRowGroup(beam.DoFn):
    def __init__(self, text_column: str) -> None:
        self._text_column = text_column
        self._documents = Metrics.counter("broetchen", "documents")

    def process(self, element: tuple[str, int]) -> Iterator[str]:
        path, row_group = element
        for _, batch in read_texts(path, [row_group], self._text_column):
            for reason, rows in batch.skipped.items():
                Metrics.counter("broetchen", f"skipped_{reason}").inc(rows)
            self._documents.inc(len(batch.texts))
            yield from batch.texts.to_pylist()


class ReadParquet(beam.PTransform[beam.PCollection[str], beam.PCollection[str]]):
    """Reads the text column of parquet files: PCollection[str] of glob patterns in, PCollection[str] of documents out.

    Files are expanded and footers read in the pipeline, and the row groups are read in parallel. Rows that are null,
    empty or not UTF-8 are left out and counted in the metrics `broetchen/skipped_null`, `…_empty`, `…_not_text`.
    A PCollection has no order; the main job, whose output has one, uses `read_texts` within a shard instead.

    Example:
        >>> import apache_beam as beam
        >>> with beam.Pipeline() as pipeline:
        ...     count = (
        ...         pipeline
        ...         | beam.Create(["samples/corpora/fineweb_english/*.parquet"])
        ...         | ReadParquet(text_column="text")
        ...         | beam.combiners.Count.Globally()
        ...         | beam.Map(lambda documents: print(documents > 100))
        ...     )
        True

    Args:
        text_column: the column that holds the documents.

    Raises:
        BroetchenError: (when run) a pattern matches nothing, a file is not parquet, or it has no such column.
    """

    def __init__(self, text_column: str = "text") -> None:
        super().__init__()
        self._text_column = text_column

    def expand(self, patterns: beam.PCollection[str]) -> beam.PCollection[str]:
        return (
            patterns
            | "Expand" >> beam.FlatMap(lambda pattern: expand_sources([pattern])).with_output_types(tuple[str, int])
            | "SpreadFiles" >> beam.Reshuffle()
            | "RowGroups" >> beam.FlatMapTuple(self._row_groups).with_output_types(tuple[str, int])
            | "SpreadRowGroups" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(_ReadRowGroup(self._text_column)).with_output_types(str)
        )

    def _row_groups(self, path: str, size: int) -> Iterator[tuple[str, int]]:
        for index in range(len(read_footer(path, size, self._text_column).row_groups)):
            yield path, index
