"""Copies of hub files that are whole and of the right content, or not there: resumable, checked by size and hash.

A file that is fetched to this machine is called `….part` until it is whole. One process at a time works at it, which
holds it by `flock(2)`, and the hash is taken of the file on the disk then. Another download of the same file waits,
and looks at the copy of the first. On a filesystem without locks each writes a file of its own, and continues none.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

import transforms.files.hub  # noqa: F401 (registers hf:// with Beam)
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.errors import explain_file_errors
from transforms.files.own_file import NO_LOCKS, check_own, is_at, open_own, try_lock

_LOGGER = logging.getLogger(__name__)
_CHUNK_BYTES = 4 << 20
_LOOK_S = 0.2

# Is told the number of bytes that were done since the last call, negative where some are done again. An exception from
# it, which it can from any call on, ends the copy.
Advance = Callable[[int], None]


def copy_verified(source: str, target: str, size: int, advance: Advance) -> bool:
    """Copies a file of the hub, unless one of its size is there; it has its name only once its hash was found right.

    To a local target a copy that was cut short is continued, and one that another process works at is waited for; to a
    remote one it starts from the beginning.

    Args:
        source: `hf://…`, whose checksum is the content's SHA-256, or the SHA-1 of its git blob.
        target: on any filesystem that Beam writes.
        size: of the source in bytes.
        advance: see `Advance`.

    Returns:
        whether anything was fetched.

    Raises:
        BroetchenError: the source cannot be read, the target cannot be written or is another user's, or the content is
            not the hub's.
    """
    if _has_size(target, size):
        advance(size)
        return False
    if storage.is_local(target):
        return _LocalCopy(source, target, size, advance).make()
    with _opened(source) as remote:
        storage.write_stream(_VerifiedContent(source, remote, size, advance), size, target)
    return True


def wrong_copy(source: str, target: str, size: int, advance: Advance) -> str | None:
    """The fault of a hub file's copy, as "is missing", by its hash; None where it is sound.

    Reads the copy, and asks the hub for the source's hash only.

    Args:
        source: as for `copy_verified`, as the others are.
        target: the copy.
        size: of the source in bytes.
        advance: is told `size` in all, in any case.

    Raises:
        BroetchenError: the hub cannot be asked, or the copy cannot be read.
    """
    if not storage.exists(target):
        advance(size)
        return "is missing"
    found = storage.size(target)
    if found != size:
        advance(size)
        return f"has {found:,} bytes instead of {size:,}"
    digest = _Digest(source, size)
    with explain_file_errors(target, "read"), _opened(target) as copy:
        digest.update_from(copy, advance)
    return None if digest.is_right() else "has another hash than the hub says"


def _has_size(target: str, size: int) -> bool:
    return storage.exists(target) and storage.size(target) == size


def _opened(path: str) -> Any:
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


class _Digest:
    """The hash of a hub file of `size` bytes, in the making, beside the one that it has to be."""

    def __init__(self, source: str, size: int) -> None:
        self._wanted = str(FileSystems.checksum(source))
        blob = b"blob %d\0" % size
        self._hash = hashlib.sha256() if len(self._wanted) == 64 else hashlib.sha1(blob, usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        self._hash.update(chunk)

    def update_from(self, file: BinaryIO, advance: Advance) -> None:
        while chunk := file.read(_CHUNK_BYTES):
            self.update(chunk)
            advance(len(chunk))

    def is_right(self) -> bool:
        return self._hash.hexdigest() == self._wanted


def _check_length(name: str, done: int, size: int) -> None:
    if done < size:
        raise BroetchenError(f"{name}: ends after {done:,} of {size:,} bytes; run it again")


def _check_hash(name: str, digest: _Digest) -> None:
    if not digest.is_right():
        raise BroetchenError(f"{name}: what arrived has another hash than the hub says; run it again")


class _VerifiedContent:
    """A hub file that is hashed as it is read, and whose end is an error where the hash is not the hub's."""

    def __init__(self, name: str, remote: BinaryIO, size: int, advance: Advance) -> None:
        self._name, self._remote, self._size = name, remote, size
        self._advance = advance
        self._done = 0
        self.seek(0)

    def seek(self, offset: int, /) -> None:
        self._remote.seek(offset)
        self._advance(-self._done)
        self._done = 0
        self._digest = _Digest(self._name, self._size)

    def read(self, size: int = -1, /) -> bytes:
        rest = self._size - self._done
        chunk = self._remote.read(rest if size < 0 else min(size, rest))
        self._digest.update(chunk)
        self._done += len(chunk)
        self._advance(len(chunk))
        if not chunk:
            _check_length(self._name, self._done, self._size)
            _check_hash(self._name, self._digest)
        return chunk


class _LocalCopy:
    """One file on its way to this machine."""

    def __init__(self, source: str, target: str, size: int, advance: Advance) -> None:
        self._source, self._target, self._size, self._advance = source, target, size, advance

    def make(self) -> bool:
        """Fetches the file, or the rest of an earlier copy, unless another process does; returns whether."""
        with explain_file_errors(self._target, "written"):
            check_own(self._target)
            storage.makedirs(storage.split(self._target)[0] or ".")
            with self._held() as (part, name):
                if self._is_made():
                    os.unlink(name)
                    return False
                self._fetch(part, name)
                return True

    @contextlib.contextmanager
    def _held(self) -> Iterator[tuple[BinaryIO, str]]:
        """The unfinished file, at which nobody else works, and its name."""
        name = f"{self._target}.part"
        while True:
            with open(open_own(name), "r+b") as part:
                try:
                    self._wait_for(part.fileno())
                except OSError as error:
                    if error.errno not in NO_LOCKS:
                        raise
                    break
                # Its last holder may have renamed or deleted it meanwhile; the next one is another file.
                if is_at(part.fileno(), name):
                    yield part, name
                    return
        name = storage.temporary_path(self._target)
        with open(open_own(name), "r+b") as part:
            try:
                yield part, name
            finally:
                storage.delete([name])

    def _wait_for(self, part: int) -> None:
        told = False
        while not try_lock(part):
            if not told:
                _LOGGER.info("%s: another process downloads it; waits until that is done", self._target)
            told = True
            time.sleep(_LOOK_S)
            self._advance(0)

    def _is_made(self) -> bool:
        """Whether another process has made the file meanwhile, by its hash."""
        if not _has_size(self._target, self._size):
            return False
        digest = _Digest(self._source, self._size)
        with open(self._target, "rb") as made:
            digest.update_from(made, lambda _: self._advance(0))
        if digest.is_right():
            self._advance(self._size)
        return digest.is_right()

    def _fetch(self, part: BinaryIO, name: str) -> None:
        """Adds the rest to `part`, and gives it its name if it is the hub's file then."""
        done = part.seek(0, os.SEEK_END)
        if done > self._size:
            part.truncate(0)
            done = part.seek(0)
        self._advance(done)
        with _opened(self._source) as remote:
            remote.seek(done)
            while done < self._size and (chunk := remote.read(min(_CHUNK_BYTES, self._size - done))):
                part.write(chunk)
                done += len(chunk)
                self._advance(len(chunk))
        part.flush()
        os.fsync(part.fileno())
        _check_length(self._source, done, self._size)
        digest = _Digest(self._source, self._size)
        part.seek(0)
        digest.update_from(part, lambda _: self._advance(0))
        if not is_at(part.fileno(), name):
            raise BroetchenError(
                f"{name}: was exchanged while it was written; make sure that nothing else writes there, and run it "
                "again"
            )
        if not digest.is_right():
            os.unlink(name)
        _check_hash(self._source, digest)
        storage.rename(name, self._target)
