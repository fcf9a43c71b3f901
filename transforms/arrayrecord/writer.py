"""Writes one ArrayRecord file, wherever Beam can write, and publishes it only when it is whole.

ArrayRecord's own writer knows local files alone (google/array_record#120), so the file is staged locally.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Sequence

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from transforms.arrayrecord.options import writer_options
from transforms.errors import BroetchenError
from transforms.files.staged import StagedShard


class ShardWriter(StagedShard):
    """Writes records to one ArrayRecord file, which appears under its name at `close` and not before.

    A context manager: it closes at the end, and leaves nothing behind after an exception. Before the file is
    published it is opened again and its records are counted, because a reader takes an ArrayRecord file that was cut
    short for an empty one. The same records and options give the same bytes. With no records the file is a valid
    ArrayRecord file of 128 KiB that holds none.

    Not for use from several threads at once. Memory is that of ArrayRecord's buffers, about 20 MB.

    Example:
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with ShardWriter(os.path.join(folder, "train-00000-of-00001.arecord")) as writer:
        ...         writer.write(b"first")
        ...         writer.write_many([b"second", b"third"])
        ...     print(writer.close().records, os.listdir(folder))
        3 ['train-00000-of-00001.arecord']

    Args:
        path: of the file, local or of any of Beam's filesystems. A file that is there is replaced.
        group_size: see `writer_options`.
        compression: see `writer_options`.
        scratch_dir: where a remote file is built, which takes its size in space; by default the system's folder for
            temporary files.

    Raises:
        UsageError: wrong options.
        BroetchenError: the file cannot be written there.
    """

    def __init__(
        self, path: str, *, group_size: int = 1, compression: str = "zstd", scratch_dir: str | None = None
    ) -> None:
        options = writer_options(group_size, compression)
        super().__init__(path, scratch_dir)
        self._writer: ArrayRecordWriter | None = ArrayRecordWriter(self._temporary, options)

    def write(self, record: bytes) -> None:
        """Appends a record.

        Raises:
            TypeError: it is not `bytes`.
            BroetchenError: writing failed. Either way the file is given up.
        """
        self.write_many((record,))

    def write_many(self, records: Sequence[bytes]) -> None:
        """Appends records, with less overhead for each than `write`.

        Raises:
            TypeError: one is not `bytes`.
            BroetchenError: writing failed. Either way the file is given up.
        """
        self._check_open()
        assert self._writer is not None
        try:
            # Iterates in C: half of the time for short records is the call.
            collections.deque(map(self._writer.write, records), maxlen=0)
        except TypeError as error:
            self.abort()
            wrong = next((record for record in records if not isinstance(record, bytes)), None)
            raise TypeError(f"{self._path}: a record is of type {type(wrong).__name__}; it has to be bytes") from error
        except BaseException as error:
            self._fail(error)
        self._records += len(records)

    def _finish(self) -> None:
        assert self._writer is not None
        self._writer.close()
        # Without these options it would begin to read the records, in threads of its own.
        reader = ArrayRecordReader(self._temporary, "readahead_buffer_size:0,max_parallelism:0")
        found = reader.num_records()
        # Without a readable header and footer there are no options; the count is 0 then, as in an empty shard.
        if found != self._records or not reader.writer_options_string():
            raise BroetchenError(
                f"{self._path}: {self._records:,} records were written and {found:,} can be read back from "
                f"{os.path.getsize(self._temporary):,} bytes in {self._temporary}; check that disk, and run it again"
            )

    def _release(self) -> None:
        self._writer = None
