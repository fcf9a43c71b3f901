"""Copies of hub files that are whole and of the right content, or not there: resumable, checked by size and hash."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from typing import BinaryIO

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.errors import explain

_CHUNK_BYTES = 4 << 20


def copy_verified(source: str, target: str, size: int, advance: Callable[[int], None]) -> bool:
    """Copies a file of the hub, unless it is there; a file has its name only once its hash was found right.

    To a local target a copy that was cut short is continued; to a remote one it starts anew.

    Args:
        source: `hf://…`, whose checksum is the content's SHA-256, or the SHA-1 of its git blob.
        target: on any filesystem that Beam writes.
        size: of the source in bytes.
        advance: is told the number of bytes that were done since the last call, negative where some are done anew.

    Returns:
        whether anything was fetched.

    Raises:
        BroetchenError: the source cannot be read, the target cannot be written, or the content is not the hub's.
    """
    if storage.exists(target) and storage.size(target) == size:
        advance(size)
        return False
    with FileSystems.open(source, compression_type=CompressionTypes.UNCOMPRESSED) as remote:
        content = _VerifiedContent(source, remote, size, str(FileSystems.checksum(source)), advance)
        if storage.is_local(target):
            _write_local(content, size, target)
        else:
            storage.write_stream(content, size, target)
    return True


class _WrongContentError(BroetchenError):
    pass


class _VerifiedContent:
    """A file that is hashed as it is read, and whose end is an error where the hash is not the expected one."""

    def __init__(self, name: str, remote: BinaryIO, size: int, checksum: str, advance: Callable[[int], None]) -> None:
        self._name, self._remote, self._size = name, remote, size
        self._checksum, self._advance = checksum, advance
        self._done = 0
        self.seek(0)

    def seek(self, offset: int, /) -> None:
        self._remote.seek(offset)
        self._advance(-self._done)
        self._done = 0
        blob = b"blob %d\0" % self._size
        self._digest = hashlib.sha256() if len(self._checksum) == 64 else hashlib.sha1(blob, usedforsecurity=False)

    def skip(self, kept: BinaryIO) -> None:
        """Takes what an earlier copy has of the beginning from there."""
        while chunk := kept.read(_CHUNK_BYTES):
            self._take(chunk)
        self._remote.seek(self._done)

    def read(self, size: int = -1, /) -> bytes:
        rest = self._size - self._done
        chunk = self._remote.read(rest if size < 0 else min(size, rest))
        self._take(chunk)
        if not chunk:
            self._check()
        return chunk

    def _take(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self._done += len(chunk)
        self._advance(len(chunk))

    def _check(self) -> None:
        if self._done < self._size:
            raise BroetchenError(f"{self._name}: ends after {self._done:,} of {self._size:,} bytes; run it again")
        if self._digest.hexdigest() != self._checksum:
            raise _WrongContentError(f"{self._name}: what arrived has another hash than the hub says; run it again")


def _write_local(content: _VerifiedContent, size: int, target: str) -> None:
    """Continues the copy that an earlier run has left beside the target, and gives it its name when it is whole."""
    unfinished = f"{target}.part"
    storage.makedirs(storage.split(target)[0])
    try:
        with open(unfinished, "a+b") as part:
            if part.tell() > size:
                part.truncate(0)
            part.seek(0)
            content.skip(part)
            shutil.copyfileobj(content, part, _CHUNK_BYTES)
            part.flush()
            os.fsync(part.fileno())
        storage.rename(unfinished, target, size=size)
    except _WrongContentError:
        storage.delete([unfinished])
        raise
    except OSError as error:
        reason, advice = explain(error)
        raise BroetchenError(f"{target}: cannot be written ({reason}); {advice}") from error
