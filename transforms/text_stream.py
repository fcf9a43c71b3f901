"""Streams of documents: the parts of a corpus one after another, bounded, counted and hashed.

A stream has an order, batches of about a megabyte, and no more than one batch in memory.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.text_buffers import text_buffers
from transforms.text_parts import TextPart


@dataclasses.dataclass(frozen=True)
class PartCount:
    """What was read of a part: documents, and bytes of UTF-8."""

    documents: int
    bytes: int


class TextStream:
    """The documents of some parts, one part after another.

    Args:
        parts: the datasets.
        limits: the most bytes to take of each part, by name; documents are taken in order, and the first that does not
            fit ends its part. None takes all.
    """

    def __init__(self, parts: Sequence[TextPart], limits: Mapping[str, int] | None = None) -> None:
        self._parts, self._limits = parts, limits
        self._texts, self._lengths = hashlib.sha256(), hashlib.sha256()
        self._counts = {part.name: PartCount(0, 0) for part in parts}
        self.skipped: Counter[str] = Counter()

    def __iter__(self) -> Iterator[pa.LargeStringArray]:
        for part in self._parts:
            yield from self._part(part)

    def _part(self, part: TextPart) -> Iterator[pa.LargeStringArray]:
        left = None if self._limits is None else self._limits[part.name]
        for texts, skipped in part.batches():
            self.skipped.update(skipped)
            lengths = pc.binary_length(texts).to_numpy()
            fitting = len(texts) if left is None else int(np.cumsum(lengths).searchsorted(left, side="right"))
            if fitting:
                taken, size = texts.slice(0, fitting), int(lengths[:fitting].sum())
                self._count(part.name, taken, lengths[:fitting], size)
                left = None if left is None else left - size
                yield taken
            if fitting < len(texts):
                return

    def _count(self, name: str, texts: pa.LargeStringArray, lengths: np.ndarray, size: int) -> None:
        data, offsets = text_buffers(texts)
        self._texts.update(data[offsets[0] : offsets[-1]])
        self._lengths.update(lengths.astype("<i8").tobytes())
        count = self._counts[name]
        self._counts[name] = PartCount(count.documents + len(texts), count.bytes + size)

    @property
    def counts(self) -> Mapping[str, PartCount]:
        """What was read so far of each part."""
        return self._counts

    @property
    def total(self) -> PartCount:
        """What was read so far of all parts."""
        counts = self._counts.values()
        return PartCount(sum(count.documents for count in counts), sum(count.bytes for count in counts))

    @property
    def sha256(self) -> str:
        """Of the documents read so far in their order, however they lie in files and batches.

        It is the SHA-256 of two digests: of all texts one after another, and of their lengths in bytes as little-endian
        int64.
        """
        return hashlib.sha256(self._texts.digest() + self._lengths.digest()).hexdigest()
