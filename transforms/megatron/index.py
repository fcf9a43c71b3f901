"""The layout of a pair of files in Megatron's format: the type of the ids, and the index of documents. Pure.

A `.bin` file holds the ids of all documents one after another. The `.idx` file beside it tells where each of them is,
little-endian throughout, as Megatron-LM's `megatron/core/datasets/indexed_dataset.py` writes it:

    9 bytes              MMIDIDX and two zeros
    uint64               1, the version
    uint8                the code of the type of an id
    uint64               number of sequences
    uint64               number of documents, and one more
    int32 [sequences]    ids of each sequence
    int64 [sequences]    where each sequence begins in the .bin file, in bytes
    int64 [documents+1]  the first sequence of each document, and the number of all sequences

A document is one sequence here, as `preprocess_data.py` has it without `--split-sentences`. One without ids is left
out: readers that sum over documents take it for the one behind it.
"""

from __future__ import annotations

import dataclasses
import posixpath
import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from transforms.errors import UsageError

_MAGIC = b"MMIDIDX\x00\x00"
_VERSION = 1
_HEAD = struct.Struct("<9sQBQQ")
HEAD_BYTES = _HEAD.size
LENGTH: np.dtype[np.integer] = np.dtype("<i4")
POINTER: np.dtype[np.integer] = np.dtype("<i8")
# Codes of Megatron's `DType`; of the types that it gives ids.
_CODES: dict[int, np.dtype[np.integer]] = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
# From this number of ids on they take 4 bytes: Megatron's `DType.optimal_dtype`.
_SMALL_VOCABULARY = 65_500
_LARGEST_VOCABULARY = 2**31
_DOCUMENTS_AT_ONCE = 1 << 16

Lengths = npt.NDArray[np.integer]


def id_type(vocab_size: int) -> np.dtype[np.integer]:
    """The type in which ids are written: uint16 for a vocabulary of fewer than 65,500 ids, else int32.

    It is the rule of Megatron's `preprocess_data.py`, which goes by the number of ids that the tokenizer has, added
    tokens included.

    Raises:
        UsageError: ids of so many do not fit.

    >>> id_type(65_499).name, id_type(65_500).name
    ('uint16', 'int32')
    """
    if vocab_size > _LARGEST_VOCABULARY:
        raise UsageError(
            f"a vocabulary of {vocab_size:,} ids does not go into Megatron's format, whose ids have 4 bytes with a "
            "sign; write records.format: tokens"
        )
    return _CODES[8 if vocab_size < _SMALL_VOCABULARY else 4]


def index_path(path: str) -> str:
    """Where the index of a file of ids lies.

    >>> index_path("german/train-00000-of-00003.bin")
    'german/train-00000-of-00003.idx'
    """
    return f"{posixpath.splitext(path)[0]}.idx"


@dataclasses.dataclass(frozen=True)
class IndexHead:
    """The beginning of an index, and with it the places of all of its parts."""

    ids: np.dtype[np.integer]
    documents: int

    @property
    def lengths_at(self) -> int:
        return HEAD_BYTES

    @property
    def pointers_at(self) -> int:
        return self.lengths_at + LENGTH.itemsize * self.documents

    @property
    def firsts_at(self) -> int:
        return self.pointers_at + POINTER.itemsize * self.documents

    @property
    def size(self) -> int:
        """The size of the whole index, in bytes."""
        return self.firsts_at + POINTER.itemsize * (self.documents + 1)

    def pack(self) -> bytes:
        """The head as it is written."""
        code = next(code for code, kind in _CODES.items() if kind == self.ids)
        return _HEAD.pack(_MAGIC, _VERSION, code, self.documents, self.documents + 1)

    @classmethod
    def parse(cls, head: bytes, size: int) -> IndexHead:
        """The head of an index.

        Args:
            head: its first `HEAD_BYTES`.
            size: of the whole file, in bytes.

        Raises:
            ValueError: it is none, or none of documents of one sequence each, or has another size than it says.
        """
        if len(head) < HEAD_BYTES:
            raise ValueError(f"it has {len(head)} bytes, and an index begins with {HEAD_BYTES}")
        magic, version, code, sequences, ends = _HEAD.unpack(head)
        if magic != _MAGIC or version != _VERSION:
            raise ValueError("it does not begin as an index of Megatron's format, version 1")
        if code not in _CODES:
            raise ValueError(f"its ids are of type {code}, and not uint16 (8) or int32 (4)")
        if ends != sequences + 1:
            raise ValueError(f"it has {sequences:,} sequences in {ends - 1:,} documents, and not one in each")
        found = cls(_CODES[code], sequences)
        if found.size != size:
            raise ValueError(f"it has {size:,} bytes, and {sequences:,} documents take {found.size:,}")
        return found


def index_size(documents: int) -> int:
    """The size of the index of so many documents, in bytes."""
    return IndexHead(_CODES[4], documents).size


def index_parts(lengths: Lengths, ids: np.dtype[np.integer]) -> Iterator[bytes]:
    """The content of an index, in parts of bounded size.

    Args:
        lengths: [documents], the ids of each, at least one and fewer than 2**31.
        ids: their type.

    >>> b"".join(index_parts(np.array([3, 1]), id_type(100))).hex(" ", 8)[-53:]
    '00 0000000000000000 0100000000000000 0200000000000000'
    """
    head = IndexHead(ids, len(lengths))
    yield head.pack()
    chunks = [lengths[start : start + _DOCUMENTS_AT_ONCE] for start in range(0, len(lengths), _DOCUMENTS_AT_ONCE)]
    for chunk in chunks:
        yield chunk.astype(LENGTH).tobytes()
    position = 0
    for chunk in chunks:
        ends = position + ids.itemsize * np.cumsum(chunk, dtype=POINTER)
        yield (ends - ids.itemsize * chunk.astype(POINTER)).tobytes()
        position = int(ends[-1])
    for start in range(0, len(lengths) + 1, _DOCUMENTS_AT_ONCE):
        yield np.arange(start, min(start + _DOCUMENTS_AT_ONCE, len(lengths) + 1), dtype=POINTER).tobytes()


def lengths_within(lengths: Lengths, skip: int, take: int) -> npt.NDArray[np.int64]:
    """The ids that each document has among `take` ids after the first `skip`; of those that have some.

    Args:
        lengths: [documents], the ids of each.

    >>> lengths_within(np.array([3, 0, 4, 5]), 2, 6)
    array([1, 4, 1])
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    held = np.minimum(ends, skip + take) - np.maximum(ends - lengths, skip)
    return held[held > 0]
