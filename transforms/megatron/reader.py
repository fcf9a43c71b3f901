"""Reads a pair of files in Megatron's format, of any writer and on any filesystem."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.errors import explain_file_errors
from transforms.files.untrusted import check_regular
from transforms.megatron.index import HEAD_BYTES, LENGTH, POINTER, IndexHead, index_path

_DOCUMENTS_AT_ONCE = 1 << 16
# A multiple of the size of an id.
_BYTES_AT_ONCE = 4 << 20


def read_ids(path: str, kind: np.dtype[np.integer], skip: int, take: int) -> Iterator[npt.NDArray[np.integer]]:
    """`take` ids of a file of ids, after the first `skip`, in parts of a few MB; fewer where the file ends.

    Args:
        path: of the `.bin` file; a remote one is copied first.
        kind: the type of its ids.

    Raises:
        BroetchenError: the file is not there, or cannot be read.
    """
    with storage.local_copy(path) as local, explain_file_errors(path, "read"), open(local, "rb") as file:
        file.seek(skip * kind.itemsize)
        while take and (content := file.read(min(take * kind.itemsize, _BYTES_AT_ONCE))):
            ids = np.frombuffer(content, kind, len(content) // kind.itemsize)
            take -= len(ids)
            yield ids


class PairReader:
    """The documents of a pair by their number, each one sequence. Memory is that of a few MB, or of one document.

    Use it as a context manager. The index is held against itself and against the size of the other file when it is
    opened, in parts. Remote files are copied first.

    Args:
        path: of the ids (`.bin`).
        index: of the `.idx` file; by default it lies beside the ids, under their name.

    Raises:
        BroetchenError: a file is not there or no regular one, or the index is damaged or of other ids.
    """

    def __init__(self, path: str, index: str | None = None) -> None:
        self._path, self._index_path = path, index or index_path(path)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> PairReader:
        try:
            self._ids = self._opened(self._path)
            self._index = self._opened(self._index_path)
            self._check()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _opened(self, path: str) -> int:
        check_regular(path)
        local = self._stack.enter_context(storage.local_copy(path))
        with explain_file_errors(path, "read"):
            handle = os.open(local, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        self._stack.callback(os.close, handle)
        return handle

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def __len__(self) -> int:
        return self._head.documents

    @property
    def id_type(self) -> np.dtype[np.integer]:
        """The type of the ids in the file."""
        return self._head.ids

    def between(self, first: int, last: int) -> Iterator[npt.NDArray[np.int64]]:
        """The ids of documents `first` to `last`, the last excluded: int64 [ids] each.

        Raises:
            BroetchenError: a file was changed since it was opened.
        """
        for begin, ends in self._stretches(first, last):
            yield from np.split(self._ids_at(begin, int(ends[-1])), (ends[:-1] - begin) // self._head.ids.itemsize)

    def parts(self) -> Iterator[tuple[npt.NDArray[np.int64], bool]]:
        """All ids, in parts of one document and at most a few MB: int64 [ids], and whether the document goes on.

        Raises:
            BroetchenError: a file was changed since it was opened.
        """
        for begin, ends in self._stretches(0, len(self)):
            if len(ends) > 1:
                several = self._ids_at(begin, int(ends[-1]))
                for ids in np.split(several, (ends[:-1] - begin) // self._head.ids.itemsize):
                    yield ids, False
                continue
            for at in range(begin, int(ends[0]), _BYTES_AT_ONCE):
                behind = min(at + _BYTES_AT_ONCE, int(ends[0]))
                yield self._ids_at(at, behind), behind < ends[0]

    def _stretches(self, first: int, last: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Some documents at a time: where they begin in the file of ids and where each ends, in bytes.

        They are as many as fit into a few MB, and one at least.
        """
        for start in range(first, last, _DOCUMENTS_AT_ONCE):
            stop = min(last, start + _DOCUMENTS_AT_ONCE)
            sizes = self._head.ids.itemsize * self._lengths(start, stop).astype(np.int64)
            begin = int(self._pointers(start, start + 1)[0])
            ends = begin + np.cumsum(sizes)
            while len(ends):
                several = max(1, int(np.searchsorted(ends, begin + _BYTES_AT_ONCE, side="right")))
                yield begin, ends[:several]
                begin, ends = int(ends[several - 1]), ends[several:]

    def _ids_at(self, begin: int, end: int) -> npt.NDArray[np.int64]:
        return np.frombuffer(self._read(self._ids, self._path, begin, end - begin), self._head.ids).astype(np.int64)

    def _lengths(self, first: int, last: int) -> npt.NDArray[np.integer]:
        return self._array(LENGTH, self._head.lengths_at, first, last)

    def _pointers(self, first: int, last: int) -> npt.NDArray[np.integer]:
        return self._array(POINTER, self._head.pointers_at, first, last)

    def _array(self, kind: np.dtype[np.integer], at: int, first: int, last: int) -> npt.NDArray[np.integer]:
        content = self._read(self._index, self._index_path, at + kind.itemsize * first, kind.itemsize * (last - first))
        return np.frombuffer(content, kind)

    def _read(self, handle: int, path: str, at: int, size: int) -> bytes:
        parts = []
        with explain_file_errors(path, "read"):
            while size:
                part = os.pread(handle, size, at)
                if not part:
                    raise BroetchenError(f"{path}: has become shorter while it was read; read it again")
                parts.append(part)
                at, size = at + len(part), size - len(part)
        return b"".join(parts)

    def _check(self) -> None:
        """Checks that the index tells of one document behind another, and of all ids."""
        try:
            size = os.fstat(self._index).st_size
            self._head = IndexHead.parse(self._read(self._index, self._index_path, 0, min(size, HEAD_BYTES)), size)
            end = self._checked_end()
        except ValueError as error:
            raise BroetchenError(
                f"{self._index_path}: cannot be read as the index of a shard: {error}; see what broetchen verify says, "
                "and build it again"
            ) from error
        if (found := os.fstat(self._ids).st_size) != end:
            raise BroetchenError(
                f"{self._path}: has {found:,} bytes, and its index tells of {end:,}; see what broetchen verify says, "
                "and build it again"
            )

    def _checked_end(self) -> int:
        """Where the last document ends in the file of ids, in bytes."""
        end, itemsize = 0, self._head.ids.itemsize
        for first in range(0, len(self) + 1, _DOCUMENTS_AT_ONCE):
            last = min(len(self), first + _DOCUMENTS_AT_ONCE)
            lengths = self._lengths(first, last)
            if (lengths < 1).any():
                number = int(np.argmax(lengths < 1))
                raise ValueError(f"document {first + number:,} has {lengths[number]:,} ids")
            sizes = itemsize * lengths.astype(np.int64)
            ends = end + np.cumsum(sizes)
            if not np.array_equal(self._pointers(first, last), ends - sizes):
                raise ValueError(f"documents do not follow each other after number {first:,}")
            firsts = self._array(POINTER, self._head.firsts_at, first, min(len(self) + 1, first + _DOCUMENTS_AT_ONCE))
            if not np.array_equal(firsts, np.arange(first, first + len(firsts))):
                raise ValueError(f"documents are not of one sequence each after number {first:,}")
            end = int(ends[-1]) if len(ends) else end
        return end
