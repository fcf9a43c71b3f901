"""The text of parquet files, batch by batch.

Reading is by row group and streams: memory is bounded by one batch, not by the row group. How many bytes rows come to
is known only once they are decoded, so few are decoded at a time, and put together to batches by their bytes. Of a file
on the hub or on ``gs://`` only the wanted column chunks are fetched, the next pieces while the last ones are worked on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

from transforms.errors import BroetchenError, one_line
from transforms.parquet.columns import fit_table
from transforms.parquet.footer import (
    RowGroup,
    SourceVersion,
    column_extent,
    leaf_of,
    row_group_facts,
)
from transforms.parquet.read_ahead import ReadAhead
from transforms.parquet.row_filter import FileFilter, RowFilter
from transforms.parquet.source_files import is_on_hub, open_source, reads_ahead
from transforms.texts import BATCH_TEXT_BYTES, TextBatch, to_texts, unwanted_rows

_MAX_BATCH_ROWS = 8192
_MISSING = -1
# Of values of 16 MiB, 256 MiB. Decoding so few at a time costs a tenth for texts of some kB, and more for short ones.
_STEP_ROWS, _STEP_ROWS_OF_SHORT, _SHORT_BYTES = 16, 32, 1 << 10
# Its decoder holds the decoded text a second time.
_GROWING, _STEP_ROWS_OF_GROWING = "DELTA_BYTE_ARRAY", 4
# As much is decoded at once where no encoding makes more of it than is in the file.
_PLAIN_BYTES = 32 << 20
_PLAIN_ENCODINGS = frozenset({"PLAIN", "RLE", "BIT_PACKED", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"})
_READ_BUFFER_BYTES = 1 << 20
# Parts of a file that lie closer together are read as one (pyarrow's default, `CacheOptions.hole_size_limit`).
_JOINED_GAP_BYTES = 8 << 10
# Where larger pieces are fetched ahead; a reader that stops early has fetched a buffer in vain.
_FETCHING_BUFFER_BYTES = 128 << 10
# The beginning of pyarrow 25's error for lists of a fixed size, where one is null.
_LISTS_WITH_NULLS = "Expected all lists to be of size="
# The most bytes that an entry's number takes in a data page of a dictionary column, the page's header included.
_INDEX_BYTES = 8


def read_texts(
    path: str,
    row_groups: Iterable[int],
    text_column: str,
    *,
    schema: pa.Schema | None = None,
    rows: RowFilter | None = None,
    ahead: bool = True,
) -> Iterator[tuple[int, TextBatch]]:
    """Streams the text column of some row groups, in the order given, or several columns.

    Args:
        schema: of the columns that are wanted, the text among them, if there are others; those that the file lacks are
            null (`transforms.parquet.columns.fit_table`).
        rows: which rows are wanted, if not all.
        ahead: whether to fetch the next pieces of a remote file meanwhile; turn it off for readers that look only at
            the beginning.

    Yields:
        (row group, batch), with batches of about `BATCH_TEXT_BYTES` of text.

    Raises:
        BroetchenError: the file is damaged; the message names the row group.
    """
    with _OpenedFile(path, list(row_groups), text_column, schema=schema, rows=rows, ahead=ahead) as opened:
        yield from opened.batches()


@dataclasses.dataclass(frozen=True)
class Beginning:
    """The first batches of a row group.

    Attributes:
        row_group: its number.
        batches: to be taken as far as they are wanted.
        dictionary: the share of the column's bytes that stand for more text than they are: 0 where they are the text
            itself, but for compression, and 1 where all are a dictionary's, or values share their beginnings.
    """

    row_group: int
    batches: Iterator[TextBatch]
    dictionary: float


def read_beginnings(
    path: str, row_groups: Sequence[int], text_column: str, *, rows: RowFilter | None = None
) -> Iterator[Beginning]:
    """Opens a file once to look at some of its row groups, one after the other; nothing is fetched ahead.

    Args:
        rows: which rows are wanted, if not all.

    Raises:
        BroetchenError: the file is damaged; or, as batches are taken, a row group is.
    """
    with _OpenedFile(path, row_groups, text_column, rows=rows, ahead=False) as opened:
        for group in row_groups:
            yield Beginning(group, opened.batches_of(group), opened.dictionary_share(group))


def read_files(
    row_groups: Sequence[tuple[str, int]],
    text_column: str,
    *,
    schema: pa.Schema | None = None,
    rows: RowFilter | None = None,
    with_left_out: bool = False,
    planned: Sequence[tuple[SourceVersion, RowGroup]] | None = None,
) -> Iterator[tuple[tuple[str, int], TextBatch]]:
    """Streams row groups of several files, as `read_texts` does; a remote file is opened while the last is read.

    Args:
        schema, rows: see `read_texts`.
        with_left_out: whether to tell which rows were left out.
        planned: the facts of each row group when it was planned: (version of its file, row group). Row groups that
            were ruled out are not read, and files that have no others are not opened.

    Yields:
        ((path, row group), batch)

    Raises:
        BroetchenError: a file is damaged, or is not as it was planned; the message names it and the row group.
    """
    expected = planned if planned is not None else [None] * len(row_groups)
    members = list(zip(row_groups, expected, strict=True))
    unread = {place: facts[1].rows for place, facts in members if facts is not None and facts[1].ruled_out}
    runs = [
        (path, [group for (_, group), _ in run], [facts for _, facts in run if facts is not None])
        for path, found in itertools.groupby((one for one in members if one[0] not in unread), lambda one: one[0][0])
        for run in [list(found)]
    ]
    batches = _read_runs(runs, text_column, schema, rows, with_left_out)
    return _with_unread(row_groups, {place: unwanted_rows(rows, schema) for place, rows in unread.items()}, batches)


def _with_unread(
    row_groups: Iterable[tuple[str, int]],
    unread: Mapping[tuple[str, int], TextBatch],
    batches: Iterable[tuple[tuple[str, int], TextBatch]],
) -> Iterator[tuple[tuple[str, int], TextBatch]]:
    """The batches, and in their places those of the row groups that are not read."""
    places = iter(row_groups)
    place = None
    for found, batch in batches:
        while place != found:
            place = next(places)
            if place in unread:
                yield place, unread[place]
        yield found, batch
    for place in places:
        if place in unread:
            yield place, unread[place]


_Run = tuple[str, Sequence[int], Sequence[tuple[SourceVersion, RowGroup]]]


def _read_runs(
    runs: Sequence[_Run], text_column: str, schema: pa.Schema | None, rows: RowFilter | None, with_left_out: bool
) -> Iterator[tuple[tuple[str, int], TextBatch]]:
    read_before = 0

    def open_run(number: int) -> _OpenedFile:
        path, groups, facts = runs[number]
        return _OpenedFile(
            path,
            groups,
            text_column,
            planned=facts,
            schema=schema,
            rows=rows,
            with_left_out=with_left_out,
            read_before=read_before,
        )

    with ThreadPoolExecutor(1, thread_name_prefix="open-next") as pool:
        following: Future[_OpenedFile] | None = None
        try:
            for number, (path, *_) in enumerate(runs):
                opened, following = following.result() if following else open_run(number), None
                with opened:
                    if number + 1 < len(runs) and reads_ahead(runs[number + 1][0]):
                        following = pool.submit(open_run, number + 1)
                    for group, batch in opened.batches():
                        yield (path, group), batch
                    read_before += opened.stored_bytes
        finally:
            if following:
                # The reader has stopped: errors of the next file do not matter.
                with contextlib.suppress(Exception), following.result():
                    pass


class _OpenedFile:
    """A parquet file from which some row groups will be read; of a remote one, the first pieces are being fetched.

    The order of its steps matters. The footer comes first, as it tells columns and encodings; then the comparison with
    the plan, before any text is fetched; then, where the text of a row group is all dictionary, a second opening by the
    same footer, since pyarrow takes `read_dictionary` only there; and last the read-ahead gets the column chunks to
    fetch. An error on the way closes the handle, which nobody else knows yet.
    """

    def __init__(
        self,
        path: str,
        row_groups: Sequence[int],
        text_column: str,
        *,
        planned: Sequence[tuple[SourceVersion, RowGroup]] = (),
        schema: pa.Schema | None = None,
        rows: RowFilter | None = None,
        with_left_out: bool = False,
        ahead: bool = True,
        read_before: int = 0,
    ) -> None:
        self._path, self._row_groups = path, row_groups
        self._text_column, self._schema, self._with_left_out = text_column, schema, with_left_out
        self._generation = planned[0][0].generation if planned else None
        self._handle = open_source(path, self._generation, read_before, in_order=ahead)
        fetches_ahead = isinstance(self._handle, ReadAhead)
        # Column chunks of several columns are read in turns, unless all that is wanted of a row group is read before it
        # is decoded: then the next groups can be fetched meanwhile.
        whole_groups = fetches_ahead and ahead and (schema is not None or rows is not None)
        try:
            # Pre-buffering holds all wanted columns of a row group in memory.
            buffer_size = _FETCHING_BUFFER_BYTES if fetches_ahead else _READ_BUFFER_BYTES
            open_parquet = functools.partial(
                pq.ParquetFile,
                self._handle,
                pre_buffer=whole_groups,
                buffer_size=buffer_size,
                # It holds where a page has a checksum; not all writers add one.
                page_checksum_verification=True,
            )
            self._parquet = open_parquet()
            metadata = self._parquet.metadata
            columns = metadata.schema.to_arrow_schema()
            self._leaf = leaf_of(columns, text_column) if columns.names.count(text_column) == 1 else _MISSING
            self._filter = FileFilter(rows, path, columns) if rows is not None and self._leaf != _MISSING else None
            self._columns = self._wanted_columns(columns)
            self._leaves = self._wanted_leaves()
            # Where all columns are taken, parquet may be written of them, whose row groups end where batches do.
            is_part = schema is None or not set(columns.names) <= set(self._columns)
            has_lists = any(metadata.schema.column(leaf).max_repetition_level for leaf in self._leaves)
            self._in_longer_steps = is_part and not has_lists
            if planned:
                self._check_planned(planned)
            if self._leaf == _MISSING or max(row_groups, default=-1) >= metadata.num_row_groups:
                raise OSError("it has changed since its footer was read; run it again, while nobody changes it")
            groups = [metadata.row_group(group) for group in row_groups]
            self._reads_dictionary = any(_is_all_dictionary(group, self._leaf) for group in groups)
            if self._reads_dictionary:
                self._parquet = open_parquet(metadata=metadata, read_dictionary=[text_column])
        except BaseException as error:
            self._handle.close()
            if isinstance(error, pa.ArrowException | OSError):
                raise BroetchenError(f"{path}: cannot be read as parquet: {one_line(error)}") from error
            raise
        self.stored_bytes = sum(map(self._stored_bytes, groups))
        if ahead and fetches_ahead:
            self._handle.plan(
                extent
                for group in groups
                for extent in _joined(column_extent(column) for column in self._wanted(group))
            )

    def _wanted_columns(self, columns: pa.Schema) -> list[str]:
        """The columns that are read, as parquet names them."""
        others = self._schema.names if self._schema is not None else []
        looked_at = self._filter.paths if self._filter is not None else []
        return list(dict.fromkeys([self._text_column, *(name for name in others if name in columns.names), *looked_at]))

    def _wanted_leaves(self) -> list[int]:
        """The numbers of the columns that are read, as they are stored."""
        stored = self._parquet.metadata.schema
        names = set(self._columns)
        return [
            leaf
            for leaf in range(len(stored))
            if leaf == self._leaf
            or any(part in names for part in itertools.accumulate(stored.column(leaf).path.split("."), "{}.{}".format))
        ]

    def _check_planned(self, planned: Sequence[tuple[SourceVersion, RowGroup]]) -> None:
        """Refuses a source that has changed since: it would give a dataset that is not as its manifest says."""
        metadata = self._parquet.metadata
        self._handle.seek(0, os.SEEK_END)
        found_size = self._handle.tell()
        checksum = FileSystems.checksum(self._path) if is_on_hub(self._path) else None
        for group, (version, facts) in zip(self._row_groups, planned, strict=True):
            found = None
            same = found_size == version.size and checksum in (None, version.checksum)
            if same and group < metadata.num_row_groups and self._leaf != _MISSING:
                found = dataclasses.replace(row_group_facts(metadata, group, self._leaf), ruled_out=facts.ruled_out)
            if found != facts:
                raise BroetchenError(
                    f"{self._path}: has changed since this build planned it ({version.size:,} bytes then, "
                    f"{found_size:,} now; row group {group} is another): run it again, while nobody changes the source"
                )

    def __enter__(self) -> _OpenedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def batches(self) -> Iterator[tuple[int, TextBatch]]:
        for group in self._row_groups:
            for batch in self.batches_of(group):
                yield group, batch

    def batches_of(self, group: int) -> Iterator[TextBatch]:
        text_column, schema = self._text_column, self._schema
        metadata = self._parquet.metadata.row_group(group)
        stored, read = self._stored_bytes(metadata), 0
        batches = _put_together(self._decoded(group, metadata))
        for batch in itertools.chain.from_iterable(_in_small_parts(one, text_column) for one in batches):
            table = None
            kept = self._filter.kept(batch) if self._filter is not None else None
            if schema is not None:
                where = f"{self._path}: row group {group}"
                # Rows that the filter leaves out need not fit the schema.
                passing = batch if kept is None or not kept.false_count else batch.filter(kept)
                table = fit_table(pa.table(passing), schema, text_column, where)
            texts = batch.column(batch.schema.get_field_index(text_column))
            first_row = read if self._with_left_out else None
            text_batch = to_texts(texts, table, text_column, first_row=first_row, wanted=kept)
            yield dataclasses.replace(text_batch, stored_bytes=stored)
            stored, read = 0, read + len(texts)

    def _decoded(self, group: int, metadata: pq.RowGroupMetaData) -> Iterator[pa.RecordBatch]:
        """The rows of the file, few at a time; its own faults are told from those of others."""
        rows, read = self._step_rows(metadata), 0
        batches = self._parquet.iter_batches(rows, [group], self._columns, use_threads=False)
        times = self._times(group, rows, metadata)
        while True:
            try:
                batch = next(batches, None)
                coarse = next(times, None)
            except (pa.ArrowException, OSError) as error:
                raise BroetchenError(self._why_unreadable(group, error)) from error
            if batch is None:
                break
            if coarse is not None:
                _check_times(f"{self._path}: row group {group} cannot be read", batch, coarse)
            read += len(batch)
            yield _without_views(batch)
        if read != metadata.num_rows:
            raise BroetchenError(
                f"{self._path}: row group {group} cannot be read (it holds {read:,} rows, and by the footer "
                f"{metadata.num_rows:,}); the file is damaged: fetch it again"
            )

    def _why_unreadable(self, group: int, error: Exception) -> str:
        reason = one_line(error)
        if isinstance(error, pa.ArrowNotImplementedError) or str(error).startswith(_LISTS_WITH_NULLS):
            return (
                f"{self._path}: row group {group} cannot be read by pyarrow {pa.__version__} ({reason}); rewrite the "
                "file without that column"
            )
        # An error of a disk or a service has a number or a class of its own; those of pyarrow about the file do not.
        if isinstance(error, pa.ArrowException) or (type(error) is OSError and error.errno is None):
            return f"{self._path}: row group {group} cannot be read ({reason}); the file is damaged: fetch it again"
        return f"{self._path}: row group {group} cannot be read: {reason}; try again"

    def _times(self, group: int, rows: int, metadata: pq.RowGroupMetaData) -> Iterator[pa.RecordBatch]:
        """The columns of 96-bit times in milliseconds, which hold all years; nanoseconds run over without a word."""
        columns = [column for column in self._wanted(metadata) if column.physical_type == "INT96"]
        if columns:
            with contextlib.closing(open_source(self._path, self._generation)) as handle:
                parquet = pq.ParquetFile(handle, coerce_int96_timestamp_unit="ms")
                paths = [column.path_in_schema for column in columns]
                yield from parquet.iter_batches(rows, [group], paths, use_threads=False)

    def dictionary_share(self, group: int) -> float:
        """See `Beginning`."""
        metadata = self._parquet.metadata.row_group(group)
        column = metadata.column(self._leaf)
        if _GROWING in column.encodings or _is_all_dictionary(metadata, self._leaf):
            return 1.0
        if not column.has_dictionary_page or not column.dictionary_page_offset:
            return 0.0
        dictionary: int = column.data_page_offset - column.dictionary_page_offset
        return min(1.0, dictionary / max(1, column.total_compressed_size))

    def _stored_bytes(self, group: pq.RowGroupMetaData) -> int:
        return sum(column.total_compressed_size for column in self._wanted(group))

    def _wanted(self, group: pq.RowGroupMetaData) -> list[pq.ColumnChunkMetaData]:
        return [group.column(leaf) for leaf in self._leaves]

    def _step_rows(self, group: pq.RowGroupMetaData) -> int:
        """How many rows to decode at a time: those of a batch by their mean, unless few of them may be much more."""
        columns = self._wanted(group)
        in_file = sum(column.total_uncompressed_size for column in columns)
        mean = max(1, in_file // max(1, group.num_rows))
        # A dictionary is not decoded here.
        grown = [column for column in columns if not _is_plain(column)]
        if self._reads_dictionary:
            grown = [column for column in grown if column.path_in_schema != self._text_column]
        if not grown and in_file <= _PLAIN_BYTES:
            rows = BATCH_TEXT_BYTES // mean
        elif any(_GROWING in column.encodings for column in columns):
            rows = _STEP_ROWS_OF_GROWING
        else:
            rows = _STEP_ROWS_OF_SHORT if mean < _SHORT_BYTES else _STEP_ROWS
            if in_file <= _PLAIN_BYTES and self._in_longer_steps:
                # A value is no longer than all of its column chunk, in which it stands once at least.
                longest = sum(column.total_uncompressed_size for column in grown)
                rows = max(rows, min(BATCH_TEXT_BYTES // mean, _PLAIN_BYTES // max(1, longest)))
        return max(1, min(_MAX_BATCH_ROWS, rows))


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same with views of text and bytes as large bytes and text, which can be filtered; it costs a copy."""
    plain = [
        pa.large_binary() if kind == pa.binary_view() else pa.large_string() if kind == pa.string_view() else None
        for kind in batch.schema.types
    ]
    if not any(plain):
        return batch
    columns = [
        column if kind is None else column.cast(kind, safe=False)
        for column, kind in zip(batch.columns, plain, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _joined(extents: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Parts of a file, those that lie close together as one, as pyarrow reads them."""
    ordered = sorted(extents)
    start, end = ordered[0]
    for following in ordered[1:]:
        if following[0] - end > _JOINED_GAP_BYTES:
            yield start, end
            start = following[0]
        end = following[1]
    yield start, end


def _is_all_dictionary(group: pq.RowGroupMetaData, leaf: int) -> bool:
    """Whether a column chunk is a dictionary and numbers of its entries: few bytes in the file can be much text."""
    column = group.column(leaf)
    if not column.has_dictionary_page or not column.dictionary_page_offset:
        return False
    dictionary = column.data_page_offset - column.dictionary_page_offset
    return bool(column.total_compressed_size - dictionary <= _INDEX_BYTES * max(1, group.num_rows))


def _check_times(where: str, batch: pa.RecordBatch, coarse: pa.RecordBatch) -> None:
    for name in coarse.schema.names:
        try:
            coarse.column(name).cast(batch.schema.field(name).type)
        except pa.ArrowException as error:
            raise BroetchenError(
                f"{where}: column {name!r} holds times (INT96) beyond the years 1677 to 2262, which nanoseconds cannot "
                "hold; rewrite it in microseconds"
            ) from error


def _is_plain(column: pq.ColumnChunkMetaData) -> bool:
    """Whether a column chunk decodes to no more than it is in the file, but for its compression."""
    return not column.has_dictionary_page and _PLAIN_ENCODINGS.issuperset(column.encodings)


def _put_together(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches of about `BATCH_TEXT_BYTES`, or of `_MAX_BATCH_ROWS`, of smaller ones in their order."""
    held: list[pa.RecordBatch] = []
    held_bytes = held_rows = 0
    for batch in batches:
        held.append(batch)
        held_bytes, held_rows = held_bytes + batch.nbytes, held_rows + len(batch)
        # Another one as large would be too much: a reader that looks only at the beginning would decode and fetch it in
        # vain.
        if held_bytes + batch.nbytes > BATCH_TEXT_BYTES or held_rows + len(batch) > _MAX_BATCH_ROWS:
            yield from _one_of(held)
            held, held_bytes, held_rows = [], 0, 0
    yield from _one_of(held)


def _one_of(batches: Sequence[pa.RecordBatch]) -> Sequence[pa.RecordBatch]:
    return batches if len(batches) < 2 else pa.Table.from_batches(batches).combine_chunks().to_batches()


def _in_small_parts(batch: pa.RecordBatch, text_column: str) -> Iterator[pa.RecordBatch]:
    """A batch in parts of about `BATCH_TEXT_BYTES` of text, where it has much more."""
    column = batch.column(batch.schema.get_field_index(text_column))
    is_dictionary = pa.types.is_dictionary(column.type)
    if not len(column) or not (is_dictionary or batch.nbytes > 2 * BATCH_TEXT_BYTES):
        yield batch
        return
    lengths = (
        pc.take(pc.binary_length(column.dictionary), column.indices) if is_dictionary else pc.binary_length(column)
    )
    ends = np.cumsum(pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False), dtype=np.int64)
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + BATCH_TEXT_BYTES, side="right")))
        yield batch.slice(start, stop - start)
        start = stop
