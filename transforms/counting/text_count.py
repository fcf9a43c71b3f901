"""The count of texts: documents, their tokens, their bytes, and how long the documents are.

Mean, median and percentiles of tokens per document come from a histogram of lengths, so they are exact and yet can be
merged: adding histograms is associative and commutative. A histogram has an entry for each distinct length. Documents
with a million different lengths would take 16 MB, and real corpora have some ten thousand.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt

# No number of anything: so many can be added up without overflow.
_END = 1 << 53
_MEDIAN, _P99 = Fraction(1, 2), Fraction(99, 100)


@dataclasses.dataclass(frozen=True, eq=False)
class Lengths:
    """How many documents have how many tokens.

    Attributes:
        lengths: int64 [distinct], tokens of a document, ascending.
        counts: int64 [distinct], documents of that length, each 1 or more.
    """

    lengths: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, lengths: npt.NDArray[np.int64]) -> Lengths:
        """The histogram of documents' tokens: int64 [documents], in any order."""
        return cls(*np.unique(lengths, return_counts=True))

    @classmethod
    def sum(cls, histograms: Iterable[Lengths]) -> Lengths:
        """The histogram of all the documents of some."""
        parts = [part for part in histograms if len(part.lengths)]
        if len(parts) < 2:
            return parts[0] if parts else cls.of(np.empty(0, np.int64))
        lengths = np.concatenate([part.lengths for part in parts])
        order = np.argsort(lengths, kind="stable")
        lengths = lengths[order]
        starts = np.flatnonzero(np.concatenate([[True], lengths[1:] != lengths[:-1]]))
        return cls(lengths[starts], np.add.reduceat(np.concatenate([part.counts for part in parts])[order], starts))

    @property
    def documents(self) -> int:
        return int(self.counts.sum())

    @property
    def tokens(self) -> int:
        return int((self.lengths * self.counts).sum())

    def quantile(self, share: Fraction) -> float | None:
        """The length below which `share` of the documents lie; None where there are no documents.

        Between two documents it is interpolated: the seventh definition of Hyndman and Fan, "Sample Quantiles in
        Statistical Packages" (The American Statistician 50, 1996), which is also `numpy.percentile`'s default.

        >>> Lengths.of(np.array([1, 2, 3, 10])).quantile(Fraction(1, 2))
        2.5
        """
        if not len(self.lengths):
            return None
        ends = np.cumsum(self.counts)
        place = (self.documents - 1) * share
        below = math.floor(place)
        low, high = (
            int(self.lengths[np.searchsorted(ends, min(rank, self.documents - 1), side="right")])
            for rank in (below, below + 1)
        )
        return float(low + (high - low) * (place - below))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Lengths)
            and np.array_equal(self.lengths, other.lengths)
            and np.array_equal(self.counts, other.counts)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True)
class TextCount:
    """Documents, their tokens and their UTF-8 bytes, and how many rows were left out: without text, or by a filter.

    `text_bytes`, `skipped`, `filtered` and `lengths` are None where the counted data do not tell: records of ids hold
    neither the text nor where documents begin. The sum with an unknown is unknown.
    """

    documents: int = 0
    tokens: int = 0
    text_bytes: int | None = 0
    skipped: int | None = 0
    lengths: Lengths | None = dataclasses.field(default_factory=lambda: Lengths.sum([]))
    filtered: int | None = 0

    @classmethod
    def of(cls, lengths: npt.NDArray[np.int64], text_bytes: int, skipped: int, filtered: int = 0) -> TextCount:
        """The count of documents by their tokens: int64 [documents]."""
        return cls(len(lengths), int(lengths.sum()), text_bytes, skipped, Lengths.of(lengths), filtered)

    @classmethod
    def sum(cls, counts: Iterable[TextCount]) -> TextCount:
        """All of some counts together."""
        counts = list(counts)
        lengths = [count.lengths for count in counts]
        return cls(
            sum(count.documents for count in counts),
            sum(count.tokens for count in counts),
            _sum_known(count.text_bytes for count in counts),
            _sum_known(count.skipped for count in counts),
            Lengths.sum(known for known in lengths if known is not None) if None not in lengths else None,
            _sum_known(count.filtered for count in counts),
        )

    def __add__(self, other: TextCount) -> TextCount:
        return TextCount.sum([self, other])

    @property
    def mean(self) -> float | None:
        """Tokens per document."""
        return self.tokens / self.documents if self.documents else None

    @property
    def median(self) -> float | None:
        """Tokens of the document in the middle; None where unknown."""
        return None if self.lengths is None else self.lengths.quantile(_MEDIAN)

    @property
    def p99(self) -> float | None:
        """Tokens that 99 documents in a hundred do not exceed; None where unknown."""
        return None if self.lengths is None else self.lengths.quantile(_P99)

    @property
    def bytes_per_token(self) -> float | None:
        return self.text_bytes / self.tokens if self.text_bytes is not None and self.tokens else None

    def to_plain(self) -> dict[str, Any]:
        """As plain JSON types."""
        histogram = self.lengths and {"lengths": self.lengths.lengths.tolist(), "counts": self.lengths.counts.tolist()}
        plain = {**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, "lengths": histogram}
        # As it was before there were filters, where there is none.
        return {name: value for name, value in plain.items() if name != "filtered" or value != 0}

    @classmethod
    def from_plain(cls, plain: Any) -> TextCount:
        """The count that `to_plain` gave.

        Raises:
            ValueError: `plain` is not of that form, or its numbers contradict each other.
        """
        try:
            documents, tokens = plain["documents"], plain["tokens"]
            text_bytes, skipped, histogram = plain["text_bytes"], plain["skipped"], plain["lengths"]
            filtered = plain.get("filtered", 0)
            lengths = histogram and Lengths(_whole(histogram["lengths"]), _whole(histogram["counts"]))
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a count of texts: {error!r}") from error
        numbers = [documents, tokens, *(number for number in (text_bytes, skipped, filtered) if number is not None)]
        if not all(type(number) is int and 0 <= number < _END for number in numbers):
            raise ValueError("a count of texts holds something else than whole numbers of 0 or more")
        if lengths is not None and not _agree(lengths, documents, tokens):
            raise ValueError("a count of texts whose histogram says otherwise")
        return cls(documents, tokens, text_bytes, skipped, lengths, filtered)


def _whole(numbers: Any) -> npt.NDArray[np.int64]:
    if not isinstance(numbers, list) or not all(type(number) is int and 0 <= number < _END for number in numbers):
        raise ValueError("a histogram holds something else than whole numbers of 0 or more")
    return np.array(numbers, np.int64)


def _agree(lengths: Lengths, documents: int, tokens: int) -> bool:
    return (
        len(lengths.lengths) == len(lengths.counts)
        and bool((np.diff(lengths.lengths) > 0).all())
        and bool((lengths.counts > 0).all())
        # In floats, which do not overflow.
        and float(np.dot(lengths.lengths.astype(np.float64), lengths.counts.astype(np.float64))) < 2 * _END
        and float(lengths.counts.astype(np.float64).sum()) < 2 * _END
        and lengths.documents == documents
        and lengths.tokens == tokens
    )


def _sum_known(numbers: Iterable[int | None]) -> int | None:
    total = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total


class TextCountCoder(beam.coders.Coder):
    """Carries a `TextCount` through a pipeline as JSON."""

    def encode(self, value: TextCount) -> bytes:
        return json.dumps(value.to_plain(), separators=(",", ":")).encode()

    def decode(self, encoded: bytes) -> TextCount:
        return TextCount.from_plain(json.loads(encoded))

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type[TextCount]:
        return TextCount

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextCountCoder)

    def __hash__(self) -> int:
        return hash(TextCountCoder)


beam.coders.registry.register_coder(TextCount, TextCountCoder)


@beam.typehints.with_input_types(TextCount)
@beam.typehints.with_output_types(TextCount)
class SumTextCounts(beam.CombineFn):
    """Adds `TextCount`s; the accumulator is one, so that memory is bounded by the distinct lengths of documents.

    >>> parts = [TextCount.of(np.array(lengths), text_bytes=9, skipped=0) for lengths in ([3, 5], [4])]
    >>> total = SumTextCounts().apply(parts)
    >>> total.documents, total.tokens, total.median
    (3, 12, 4.0)
    """

    def create_accumulator(self) -> TextCount:
        return TextCount()

    def add_input(self, accumulator: TextCount, count: TextCount) -> TextCount:
        return accumulator + count

    def merge_accumulators(self, accumulators: Iterable[TextCount]) -> TextCount:
        return TextCount.sum(accumulators)

    def extract_output(self, accumulator: TextCount) -> TextCount:
        return accumulator

    def get_accumulator_coder(self) -> TextCountCoder:
        return TextCountCoder()
