"""Writes one ArrayRecord file, wherever Beam can write, and publishes it only when it is whole.

ArrayRecord's own writer knows local files alone (google/array_record#120). So the file is always written locally: for a
local destination under a temporary name beside it, for a remote one in a scratch folder, from where it is uploaded.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import NoReturn, Self

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from transforms import files
from transforms.errors import BroetchenError, UsageError
from transforms.json_coder import register_json_coder

# Levels (lowest, highest, default) of the codecs, as ArrayRecord's option parser takes them. Its `snappy` has levels
# too, but does not record them in the file.
_LEVELS = {"zstd": (-131072, 22, 3), "brotli": (0, 11, 6)}
_MAX_GROUP_SIZE = 2**31 - 1


def writer_options(group_size: int = 1, compression: str = "zstd") -> str:
    """ArrayRecord's option string, always the same for the same meaning, since ArrayRecord keeps it in the file.

    Args:
        group_size: records that are compressed together. 1 reads fastest at random, and is what Grain asks for.
        compression: ``zstd``, ``brotli``, ``snappy`` or ``none``; the first two with a level if wanted (``zstd:6``).
            High levels of brotli take milliseconds for each group.

    Raises:
        UsageError: there is no such compression, or a number is out of range.

    >>> writer_options(1, "zstd")
    'group_size:1,zstd:3'
    >>> writer_options(16, "none")
    'group_size:16,uncompressed'
    """
    if isinstance(group_size, bool) or not isinstance(group_size, int) or not 1 <= group_size <= _MAX_GROUP_SIZE:
        raise UsageError(f"group_size is {group_size!r}; use a whole number from 1 to {_MAX_GROUP_SIZE:,}")
    match = re.fullmatch(r"([a-z]+)(?::(-?[0-9]{1,6}))?", compression)
    codec, level = match.groups() if match else (compression, None)
    if codec in _LEVELS:
        lowest, highest, default = _LEVELS[codec]
        number = default if level is None else int(level)
        if not lowest <= number <= highest:
            raise UsageError(f"compression {compression!r}: the levels of {codec} go from {lowest} to {highest}")
        return f"group_size:{group_size},{codec}:{number}"
    if codec in ("snappy", "none") and level is None:
        return f"group_size:{group_size},{'uncompressed' if codec == 'none' else codec}"
    raise UsageError(
        f"compression {compression!r} is unknown; use zstd, zstd:LEVEL, brotli, brotli:LEVEL, snappy or none"
    )


@register_json_coder
@dataclasses.dataclass(frozen=True)
class WrittenShard:
    """A published file: where it is, its records, its size in bytes, and the SHA-256 of its bytes in hexadecimal."""

    path: str
    records: int
    bytes: int
    sha256: str


class ShardWriter:
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
        self._path = path
        self._records = 0
        self._written: WrittenShard | None = None
        self._temporary = _create_temporary(path, scratch_dir)
        self._writer: ArrayRecordWriter | None = ArrayRecordWriter(self._temporary, options)

    @property
    def path(self) -> str:
        """The name under which the file is published."""
        return self._path

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
        writer = self._open_writer()
        try:
            # Iterates in C: half of the time for short records is the call.
            collections.deque(map(writer.write, records), maxlen=0)
        except TypeError as error:
            self.abort()
            wrong = next((record for record in records if not isinstance(record, bytes)), None)
            raise TypeError(f"{self._path}: a record is of type {type(wrong).__name__}; it has to be bytes") from error
        except BaseException as error:
            self._fail(error)
        self._records += len(records)

    def close(self) -> WrittenShard:
        """Publishes the file. May be called again, and then only answers.

        Raises:
            BroetchenError: the file could not be written or published, or an earlier write failed; there is no new
                file, and one that was there before still is.
        """
        if self._written is not None:
            return self._written
        writer = self._open_writer()
        try:
            writer.close()
            self._check()
            with open(self._temporary, "rb") as file:
                os.fsync(file.fileno())
                checksum = hashlib.file_digest(file, "sha256").hexdigest()
                size = os.fstat(file.fileno()).st_size
            if files.is_local(self._path):
                files.rename(self._temporary, self._path)
            else:
                files.upload(self._temporary, self._path)
        except BaseException as error:
            self._fail(error)
        self._written = WrittenShard(self._path, self._records, size, checksum)
        self.abort()
        return self._written

    def abort(self) -> None:
        """Gives the file up and deletes what was written of it. After `close`, there is nothing to give up."""
        self._writer = None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary)

    def _open_writer(self) -> ArrayRecordWriter:
        if self._writer is None:
            state = "closed" if self._written else "given up after an earlier error"
            raise BroetchenError(f"{self._path}: this writer was {state}; make a new one")
        return self._writer

    def _check(self) -> None:
        # Without these options it would begin to read the records, in threads of its own.
        reader = ArrayRecordReader(self._temporary, "readahead_buffer_size:0,max_parallelism:0")
        found = reader.num_records()
        # Without a readable header and footer there are no options; the count is 0 then, as in an empty shard.
        if found != self._records or not reader.writer_options_string():
            raise BroetchenError(
                f"{self._path}: {self._records:,} records were written and {found:,} can be read back from "
                f"{os.path.getsize(self._temporary):,} bytes in {self._temporary}; check that disk, and run it again"
            )

    def _fail(self, error: BaseException) -> NoReturn:
        self.abort()
        # ArrayRecord reports a failed write by a RuntimeError whose text names the cause, at the first or a later call.
        if isinstance(error, RuntimeError):
            reason = str(error).split(";")[0]
            raise BroetchenError(
                f"{self._path}: a shard could not be written ({reason}, in {os.path.dirname(self._temporary) or '.'}); "
                "free some space there, or choose another folder, and run it again"
            ) from error
        if isinstance(error, OSError):
            reason, advice = files.explain(error)
            raise BroetchenError(
                f"{self._path}: a shard could not be written, by way of {self._temporary} ({reason}); {advice}"
            ) from error
        raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._written is None:
            self.abort()


def _create_temporary(path: str, scratch_dir: str | None) -> str:
    folder, name = files.split(path)
    if not name:
        raise UsageError(f"{path}: a shard needs a file name, and this is a folder")
    if files.is_local(path):
        files.makedirs(folder or ".")
        temporary = files.temporary_path(path)
    else:
        temporary = files.temporary_path(os.path.join(scratch_dir or tempfile.gettempdir(), name))
    try:
        # ArrayRecord opens files late, and then cannot say much about what is wrong.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        reason, advice = files.explain(error)
        raise BroetchenError(f"{path}: cannot be written, by way of {temporary} ({reason}); {advice}") from error
    return temporary
