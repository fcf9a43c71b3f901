"""Text shards as parquet: documents with the other columns of their source."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.errors import BroetchenError, one_line
from transforms.files import storage
from transforms.files.staged import StagedShard
from transforms.parquet.source_files import open_source

# A row group is written once it holds this much; readers take one at a time.
_ROW_GROUP_BYTES = 16 << 20


class ParquetShardWriter(StagedShard):
    """Writes tables to one parquet file, which appears under its name at `close` and not before.

    All tables have the schema of the first. The same tables and options, by the same version of pyarrow, give the same
    bytes.

    Args:
        path: of the file, local or of any of Beam's filesystems. A file that is there is replaced.
        compression: `zstd`, `brotli`, `snappy` or `none`; the first two with a level if wanted (`zstd:6`).
        scratch_dir: see `StagedShard`.

    Raises:
        BroetchenError: the file cannot be written there.
    """

    def __init__(self, path: str, *, compression: str = "zstd", scratch_dir: str | None = None) -> None:
        super().__init__(path, scratch_dir)
        codec, _, level = compression.partition(":")
        self._codec, self._level = codec, int(level) if level else None
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def write(self, table: pa.Table) -> None:
        """Appends rows.

        Raises:
            BroetchenError: writing failed.
        """
        self._check_open()
        try:
            self._waiting.append(table.replace_schema_metadata(None))
            if sum(waiting.nbytes for waiting in self._waiting) >= _ROW_GROUP_BYTES:
                self.end_row_group()
        except BaseException as error:
            self._fail(error)
        self._records += len(table)

    def end_row_group(self) -> None:
        """Begins a new row group with the next rows; they begin one by themselves where the last one is large."""
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting = []
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._temporary, table.schema, compression=self._codec, compression_level=self._level
            )
        self._writer.write_table(table, row_group_size=max(1, len(table)))

    def _finish(self) -> None:
        if self._writer is None and not self._waiting:
            self._waiting = [pa.table({})]
        self.end_row_group()
        assert self._writer is not None
        self._writer.close()
        found = pq.read_metadata(self._temporary).num_rows
        if found != self._records:
            raise BroetchenError(f"{self._path}: {self._records:,} rows were written and {found:,} can be read back")

    def _release(self) -> None:
        self._writer = None
        self._waiting = []


def read_columns(path: str) -> pa.Schema:
    """The columns of a parquet file, wherever it lies.

    Raises:
        BroetchenError: the file is not there, or is damaged.
    """
    try:
        with contextlib.closing(open_source(path)) as file:
            return pq.read_schema(file).remove_metadata()
    except (pa.ArrowException, OSError) as error:
        raise BroetchenError(f"{path}: cannot be read as parquet: {one_line(error)}") from error


class ParquetRows:
    """Rows of one parquet file by their number, wherever it lies. Use it as a context manager.

    Raises:
        BroetchenError: the file is not there, or is damaged.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> ParquetRows:
        local = self._stack.enter_context(storage.local_copy(self._path))
        try:
            self._file = self._stack.enter_context(pq.ParquetFile(local, pre_buffer=False))
        except (pa.ArrowException, OSError) as error:
            self._stack.close()
            raise BroetchenError(f"{self._path}: cannot be read as parquet: {one_line(error)}") from error
        metadata = self._file.metadata
        rows = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def between(self, first: int, last: int) -> Iterator[pa.Table]:
        """Rows `first` to `last`, the last excluded, as tables of at most a row group."""
        while first < last:
            group = int(np.searchsorted(self._starts, first, side="right")) - 1
            start, end = int(self._starts[group]), min(last, int(self._starts[group + 1]))
            try:
                table = self._file.read_row_group(group)
            except (pa.ArrowException, OSError) as error:
                raise BroetchenError(f"{self._path}: row group {group} cannot be read: {one_line(error)}") from error
            yield table.slice(first - start, end - first)
            first = end
