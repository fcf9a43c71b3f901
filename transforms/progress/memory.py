"""Remembers the sound files of a run that was stopped, so that the next run need not read them again.

The memory lies in the cache of the user (`transforms.cache`) and never beside the files themselves, where the writer of
a damaged file could write that it is sound. A file is taken for one that was read only while all of this holds:

* its version is the same (`storage.version`): on a local disk device, inode, size, and the times of the last write and
  of the last change, of which the second cannot be set back; on ``gs://`` the generation;
* its version was the same before and after it was read, and on a local disk its last change was ten seconds ago by
  then, so that no write can hide within the grain of the clock;
* all that was expected of it is the same, which the key stands for;
* it was read less than a week ago: bytes that a disk changes by itself leave no trace elsewhere.

Other filesystems tell no version, and nothing is remembered of them. Records that are damaged, or not this user's, are
left out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import posixpath
import shutil
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from transforms.errors import BroetchenError
from transforms.files import storage

KEPT_S = 7 * 86400
"""How long findings count, in seconds."""

_SETTLED_S = 10.0
# A record from later than now is from another clock.
_SKEW_S = 60.0
_MOST_BYTES = 256 << 20


class _Buffer(Protocol):
    def tobytes(self) -> bytes: ...


def digest_of(values: _Buffer) -> str:
    """The SHA-256 of an array's bytes."""
    return hashlib.sha256(values.tobytes()).hexdigest()


Versions = Mapping[str, str]
"""The versions of files, by path."""


@dataclasses.dataclass(frozen=True)
class _Record:
    files: Versions
    value: Any
    at: float


class Memory:
    """The findings about one output, under all that decides them; each worker process writes a file of its own.

    Args:
        folder: of this memory alone; see `memory_folder`.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._known: dict[str, _Record] | None = None
        self._own: tuple[int, str] | None = None

    def __reduce__(self) -> tuple[type[Memory], tuple[str]]:
        return Memory, (self.folder,)

    def begin(self) -> None:
        """Makes the folder, and deletes others that are too old to count."""
        root = Path(self.folder).parent
        with contextlib.suppress(OSError):
            Path(self.folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            for other in root.iterdir():
                if time.time() - other.stat().st_mtime > KEPT_S and _is_own_folder(str(other)):
                    shutil.rmtree(other, ignore_errors=True)

    def forget(self) -> None:
        """Deletes it."""
        if _is_own_folder(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)
        self._known = None

    def paths(self) -> set[str]:
        """The files that were found sound, whether or not they have changed since."""
        return {path for record in self._records().values() for path in record.files}

    def recall(self, key: str, files: Sequence[str]) -> Any:
        """The value kept for these files under a key; None where none was, or one has changed, or cannot be seen."""
        record = self._records().get(key)
        if record is None or record.files.keys() != set(files) or not -_SKEW_S < time.time() - record.at < KEPT_S:
            return None
        with contextlib.suppress(BroetchenError):  # Its reader says so, beside all that is wrong elsewhere.
            return record.value if all(storage.version(path) == record.files[path] for path in files) else None
        return None

    def look(self, files: Sequence[str]) -> Versions | None:
        """The versions of files that are about to be read; None where findings about them cannot be kept."""
        found = {}
        for path in files:
            version = _settled_version(path)
            if version is None:
                return None
            found[path] = version
        return found

    def keep(self, key: str, seen: Versions | None, value: Any) -> None:
        """Notes, after files were read and found sound, a value to recall for them.

        Args:
            key: stands for all that was expected of them.
            seen: the answer of `look` before they were read.
            value: of plain JSON types, not None.
        """
        if seen is None or self.look(list(seen)) != seen:
            return
        line = json.dumps({"key": key, "files": dict(seen), "value": value, "at": time.time()}, sort_keys=True)
        with contextlib.suppress(OSError):
            if not _is_own_folder(self.folder):
                return
            if self._own is None or self._own[0] != os.getpid():
                self._own = os.getpid(), posixpath.join(self.folder, f"{uuid.uuid4().hex}.jsonl")
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._own[1], flags, 0o600)
            try:
                os.write(descriptor, f"{_seal(line)} {line}\n".encode())
            finally:
                os.close(descriptor)

    def _records(self) -> Mapping[str, _Record]:
        if self._known is None:
            self._known = dict(_read_folder(self.folder))
        return self._known


def memory_folder(cache: Path, job: str, parts: Iterable[str]) -> str:
    """The folder of a memory: of a job, and of all parts that decide its findings."""
    return str(cache / job / hashlib.sha256("\n".join(parts).encode()).hexdigest())


def _settled_version(path: str) -> str | None:
    with contextlib.suppress(BroetchenError, OSError):
        if storage.is_local(path) and time.time() - os.lstat(path).st_ctime < _SETTLED_S:
            return None
        return storage.version(path)
    return None


def _read_folder(folder: str) -> Iterator[tuple[str, _Record]]:
    if not _is_own_folder(folder):
        return
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(folder)):
            yield from _read_file(posixpath.join(folder, name))


def _read_file(path: str) -> Iterator[tuple[str, _Record]]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_size > _MOST_BYTES:
            return
        for line in file.read(_MOST_BYTES).decode(errors="replace").splitlines():
            seal, _, content = line.partition(" ")
            if seal == _seal(content):
                record = json.loads(content)
                yield record["key"], _Record(record["files"], record["value"], record["at"])


def _seal(content: str) -> str:
    """A line that was cut off when its run was killed, or that a disk has changed, has another."""
    return hashlib.sha256(content.encode()).hexdigest()


def _is_own_folder(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
