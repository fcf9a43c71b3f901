"""Writes an array into an .npy file piece by piece, wherever the file lies, and takes its checksum on the way."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from transforms.files import storage
from transforms.files.errors import explain_file_errors
from transforms.files.own_file import open_own
from transforms.files.scratch import temporary_folder


class NpyFile:
    """An array that is being written.

    Attributes:
        path: where it will be, local or gs://….
        bytes: written so far.
    """

    def __init__(self, path: str, file: BinaryIO, kind: npt.DTypeLike, shape: Sequence[int]) -> None:
        """See `new_npy`, which makes one."""
        self.path, self.bytes = path, 0
        self._file, self._kind, self._digest, self._missing = file, np.dtype(kind), hashlib.sha256(), shape[0]
        described = np.lib.format.dtype_to_descr(self._kind)
        header = {"descr": described, "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(self, header)

    def write(self, data: bytes | memoryview) -> None:
        """Adds bytes."""
        with explain_file_errors(self.path, "written"):
            self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)

    def append(self, piece: npt.NDArray[np.generic]) -> None:
        """Adds rows; those beyond the shape are left out."""
        kept = np.ascontiguousarray(piece[: self._missing], self._kind)
        if len(kept):
            self.write(memoryview(kept).cast("B"))
        self._missing -= len(kept)

    @property
    def sha256(self) -> str:
        """The SHA-256 of all that was written."""
        return self._digest.hexdigest()

    def check(self) -> None:
        """Checks that no row is missing.

        Raises:
            ValueError: one is.
        """
        if self._missing:
            raise ValueError(f"{self.path}: lacks {self._missing:,} rows")


@contextlib.contextmanager
def new_npy(path: str, kind: npt.DTypeLike, shape: Sequence[int]) -> Iterator[NpyFile]:
    """A file for an array, which appears under its name at the end of the block, whole, or not at all.

    Args:
        path: local or gs://….
        kind: the type of the numbers.
        shape: of the whole array, whose rows the block appends.

    Raises:
        BroetchenError: it cannot be written.
        ValueError: rows are missing at the end.
    """
    if not storage.is_local(path):
        with temporary_folder("order") as scratch:
            local = os.path.join(scratch, storage.split(path)[1])
            with new_npy(local, kind, shape) as array:
                yield array
            storage.upload(local, path)
        return
    unfinished = storage.temporary_path(path)
    try:
        with explain_file_errors(path, "written"), open(open_own(unfinished), "wb") as file:
            yield (array := NpyFile(path, file, kind, shape))
            array.check()
            file.flush()
            os.fsync(file.fileno())
        with explain_file_errors(path, "written"):
            os.replace(unfinished, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
