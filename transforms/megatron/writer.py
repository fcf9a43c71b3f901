"""Writes files of ids in Megatron's format, `.bin`, and their indices."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from transforms.checksums import FileMark, mark_of
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.staged import StagedShard
from transforms.megatron.index import Lengths, id_type, index_parts


class IdWriter(StagedShard):
    """Writes ids to one `.bin` file, which appears under its name at `close` and not before.

    Not for use from several threads at once. The same ids give the same bytes.

    Args:
        path: of the file, local or of any of Beam's filesystems. A file that is there is replaced.
        vocab_size: of the tokenizer, which decides on the type of the ids (`transforms.megatron.index.id_type`).
        scratch_dir: see `StagedShard`.

    Raises:
        BroetchenError: the file cannot be written there.
    """

    def __init__(self, path: str, *, vocab_size: int, scratch_dir: str | None = None) -> None:
        super().__init__(path, scratch_dir)
        self._type, self._vocab_size, self._ids = id_type(vocab_size), vocab_size, 0
        self._file = open(self._temporary, "wb")  # noqa: SIM115 (closed by `_release`)

    def write(self, ids: npt.NDArray[np.integer], documents: int) -> None:
        """Appends ids.

        Args:
            ids: [ids], of some documents, one after another.
            documents: that end in them; the last one of a file may go on, and counts all the same.

        Raises:
            BroetchenError: writing failed, or an id is none of the tokenizer's.
        """
        self._check_open()
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self._vocab_size:
            self.abort()
            raise BroetchenError(
                f"{self._path}: ids from {ids.min()} to {ids.max()} are to be written, and the tokenizer has "
                f"{self._vocab_size:,}"
            )
        try:
            self._file.write(ids.astype(self._type, copy=False).data)
        except BaseException as error:
            self._fail(error)
        self._ids += len(ids)
        self._records += documents

    def _finish(self) -> None:
        self._file.close()
        found = os.path.getsize(self._temporary)
        if found != self._ids * self._type.itemsize:
            raise BroetchenError(
                f"{self._path}: {self._ids:,} ids were written, and {found:,} bytes are in {self._temporary}; check "
                "that disk, and run it again"
            )

    def _release(self) -> None:
        self._file.close()


def write_index(path: str, lengths: Lengths, vocab_size: int) -> FileMark:
    """Writes an index, whole; a file that is there is replaced. May be repeated.

    Args:
        path: of the index.
        lengths: [documents], the ids of each.
        vocab_size: of the tokenizer.

    Raises:
        BroetchenError: it cannot be written there.
    """
    content = b"".join(index_parts(lengths, id_type(vocab_size)))
    storage.write_bytes(path, content)
    return mark_of(content)
