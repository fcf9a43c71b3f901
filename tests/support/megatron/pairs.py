"""Files in Megatron's format by its description alone: the files of `preprocess_data.py` for the same documents."""

from __future__ import annotations

import array
import struct
import sys
from collections.abc import Sequence
from pathlib import Path


def write_pair(prefix: Path, documents: Sequence[Sequence[int]], vocab_size: int) -> None:
    """Writes `prefix.bin` and `prefix.idx`, id by id and number by number.

    Args:
        documents: the ids of each, at least one.
        vocab_size: fewer than 65,500 take two bytes each, else four.
    """
    small = vocab_size < 65_500
    code, letter, size = (8, "H", 2) if small else (4, "i", 4)
    with open(f"{prefix}.bin", "wb") as ids:
        for document in documents:
            ids.write(b"".join(struct.pack(f"<{letter}", token) for token in document))
    pointers, position = [], 0
    for document in documents:
        pointers.append(position)
        position += size * len(document)
    with open(f"{prefix}.idx", "wb") as index:
        index.write(b"MMIDIDX\x00\x00")
        index.write(struct.pack("<QB", 1, code))
        index.write(struct.pack("<Q", len(documents)))
        index.write(struct.pack("<Q", len(documents) + 1))
        for kind, numbers in (("i", [len(document) for document in documents]), ("q", pointers)):
            index.write(_little(kind, numbers))
        index.write(_little("q", list(range(len(documents) + 1))))


def _little(kind: str, numbers: Sequence[int]) -> bytes:
    found = array.array(kind, numbers)
    if sys.byteorder == "big":
        found.byteswap()
    return found.tobytes()
