"""Parquet as a source of documents: what lies in the files, and their text, batch by batch.

Footers tell everything that planning needs (rows and bytes of each row group) for a few kilobytes a file. Reading is
by row group and streams: memory is bounded by one batch, not by the row group. Of a file on the hub the column chunks
that are wanted are fetched, the next pieces while the last ones are worked on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics

from transforms import files, hub_path
from transforms.errors import BroetchenError, one_line
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

NULL, EMPTY, NOT_TEXT = "null", "empty", "not_text"


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
    that are read for it, of the wanted columns as the file stores them.
    """

    texts: pa.LargeStringArray
    skipped: Mapping[str, int]
    table: pa.Table | None = None
    stored_bytes: int = 0

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
    _check_text_column(path, schema, text_column)
    return SourceFile(
        path=path,
        size=size,
        footer_sha256=hashlib.sha256(footer).hexdigest(),
        checksum=None if files.is_local(path) else str(FileSystems.checksum(path)),
        row_groups=tuple(_row_groups(metadata, text_column)),
    )


def _read_tail(handle: Any, size: int, wanted: int) -> bytes:
    handle.seek(max(0, size - wanted))
    data: bytes = handle.read(wanted)
    return data


def _check_text_column(path: str, schema: pa.Schema, text_column: str) -> None:
    if text_column not in schema.names:
        raise BroetchenError(
            f"{path}: no column {text_column!r}; the file has {', '.join(schema.names)}: set text_column to one of them"
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
        group = metadata.row_group(index)
        chunk = group.column(column)
        yield RowGroup(group.num_rows, chunk.total_uncompressed_size, chunk.total_compressed_size)


def _leaf(metadata: pq.FileMetaData, text_column: str) -> int:
    return next(i for i in range(metadata.num_columns) if metadata.schema.column(i).path == text_column)


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
    row_groups: Iterable[tuple[str, int]], text_column: str, *, with_columns: bool = False
) -> Iterator[tuple[tuple[str, int], TextBatch]]:
    """Streams row groups of several files, as `read_texts` does; a file on the hub is opened while the last is read.

    Yields:
        ((path, row group), batch)

    Raises:
        BroetchenError: a file is damaged; the message names it and the row group.
    """
    runs = [
        (path, [group for _, group in members])
        for path, members in itertools.groupby(row_groups, key=lambda member: member[0])
    ]
    read_before = 0

    def open_run(number: int) -> _OpenedFile:
        return _OpenedFile(*runs[number], text_column, with_columns=with_columns, read_before=read_before)

    with ThreadPoolExecutor(1, thread_name_prefix="open-next") as pool:
        following: Future[_OpenedFile] | None = None
        try:
            for number, (path, _) in enumerate(runs):
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
        with_columns: bool,
        ahead: bool = True,
        read_before: int = 0,
    ) -> None:
        self._path, self._row_groups = path, row_groups
        self._text_column, self._with_columns = text_column, with_columns
        self._handle = _open(path, read_before)
        fetches_ahead = isinstance(self._handle, ReadAhead)
        # Column chunks of several columns are read in turns, unless all of a row group is read before it is decoded:
        # then the next groups can be fetched meanwhile.
        whole_groups = fetches_ahead and ahead and with_columns
        try:
            # Pre-buffering holds all that is wanted of a row group in memory.
            buffer_size = _FETCHING_BUFFER_BYTES if fetches_ahead else _READ_BUFFER_BYTES
            self._parquet = pq.ParquetFile(self._handle, pre_buffer=whole_groups, buffer_size=buffer_size)
        except BaseException as error:
            self._handle.close()
            if isinstance(error, pa.ArrowException | OSError):
                raise BroetchenError(f"{path}: cannot be read as parquet: {one_line(error)}") from error
            raise
        self._leaf = _leaf(self._parquet.metadata, text_column)
        groups = [self._parquet.metadata.row_group(group) for group in row_groups]
        self.stored_bytes = sum(map(self._stored_bytes, groups))
        if ahead and fetches_ahead:
            self._handle.plan(_extent(group) if whole_groups else _chunk(group.column(self._leaf)) for group in groups)

    def __enter__(self) -> _OpenedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def batches(self) -> Iterator[tuple[int, TextBatch]]:
        text_column = self._text_column
        column = self._parquet.schema_arrow.get_field_index(text_column)
        wanted = None if self._with_columns else [text_column]
        for group in self._row_groups:
            metadata = self._parquet.metadata.row_group(group)
            rows, stored = _batch_rows(metadata, column), self._stored_bytes(metadata)
            try:
                for batch in self._parquet.iter_batches(rows, [group], wanted, use_threads=False):
                    texts = batch.column(batch.schema.get_field_index(text_column))
                    found = to_texts(texts, pa.table(batch) if self._with_columns else None, text_column)
                    yield group, dataclasses.replace(found, stored_bytes=stored)
                    stored = 0
            except (pa.ArrowException, OSError) as error:
                raise BroetchenError(
                    f"{self._path}: row group {group} cannot be read ({one_line(error)}); the file is damaged: fetch "
                    "it again"
                ) from error

    def _stored_bytes(self, group: pq.RowGroupMetaData) -> int:
        leaves = range(group.num_columns) if self._with_columns else [self._leaf]
        return sum(group.column(leaf).total_compressed_size for leaf in leaves)


def _batch_rows(group: Any, column: int) -> int:
    mean = max(1, group.column(column).total_uncompressed_size // max(1, group.num_rows))
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


def to_texts(column: pa.Array, table: pa.Table | None = None, text_column: str = "text") -> TextBatch:
    """The documents of a column of strings or bytes, plain or dictionary-encoded.

    Rows that are null, empty, or not valid UTF-8 are left out and counted.

    Args:
        table: the rows with all their columns, if those are to be kept; the column is its `text_column`.
    """
    skipped: Counter[str] = Counter()

    def keep(reason: str, kept: pa.Array) -> None:
        nonlocal column, table
        skipped[reason] += len(column) - (pc.sum(kept).as_py() or 0)
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
    return TextBatch(column, dict(skipped), table)


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


class ReadParquet(beam.PTransform):
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
            | "Expand" >> beam.FlatMap(lambda pattern: expand_sources([pattern]))
            | "SpreadFiles" >> beam.Reshuffle()
            | "RowGroups" >> beam.FlatMapTuple(self._row_groups)
            | "SpreadRowGroups" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(_ReadRowGroup(self._text_column)).with_output_types(str)
        )

    def _row_groups(self, path: str, size: int) -> Iterator[tuple[str, int]]:
        for index in range(len(read_footer(path, size, self._text_column).row_groups)):
            yield path, index
