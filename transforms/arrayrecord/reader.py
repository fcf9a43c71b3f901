"""Reads the records of one ArrayRecord file, wherever it lies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from array_record.python import array_record_module

from transforms.errors import BroetchenError
from transforms.files import storage

_BATCH_RECORDS = 512


class RecordReader:
    """Records by index and in order. A remote file is copied first.

    Of remote paths, array_record takes only `gs://`, and sends a request for each record.

    Use it as a context manager.

    Raises:
        BroetchenError: the file is not there, or is damaged.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> RecordReader:
        local = self._stack.enter_context(storage.local_copy(self._path))
        try:
            self._reader = array_record_module.ArrayRecordReader(local, "readahead_buffer_size:0,max_parallelism:0")
        except (ValueError, RuntimeError) as error:
            self._stack.close()
            raise BroetchenError(f"{self._path}: cannot be read as ArrayRecord: {error}") from error
        self._stack.callback(self._reader.close)
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._stack.close()
        except (ValueError, RuntimeError) as error:
            # A damaged file may open as one without records, and is told to be damaged when it is closed.
            if not any(exception):
                raise BroetchenError(f"{self._path}: cannot be read as ArrayRecord: {error}") from error

    def __len__(self) -> int:
        return int(self._reader.num_records())

    def __getitem__(self, index: int) -> bytes:
        return next(self.between(index, index + 1))

    def __iter__(self) -> Iterator[bytes]:
        return self.between(0, len(self))

    def between(self, first: int, last: int) -> Iterator[bytes]:
        """Records `first` to `last`, the last excluded."""
        for start in range(first, last, _BATCH_RECORDS):
            stop = min(last, start + _BATCH_RECORDS)
            try:
                records: list[bytes] = self._reader.read(start, stop)
            except (ValueError, RuntimeError, IndexError) as error:
                raise BroetchenError(f"{self._path}: records {start} to {stop} cannot be read: {error}") from error
            yield from records
