"""Sufficient statistics of text under a tokenizer, and their sums on Beam.

A `TokenStatistics` holds the contribution of a piece of a corpus: sizes of the text, and how often each id came out.
Two of them add up to that of both pieces together, in any order, so that a corpus may be cut between any two documents.
Every metric (`transforms.evaluation.metrics`) follows from the sum. Memory is bounded by the vocabulary, not by the
corpus.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# Runs of anything but line ends, in RE2.
_LINE = r"[^\r\n]+"


def _no_counts() -> NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class TokenStatistics:
    """Sufficient statistics of a text under a tokenizer; `a + b` is that of both texts.

    Attributes:
        documents: texts that were encoded.
        text_bytes: their size in UTF-8.
        characters: their size in code points.
        lines: runs of characters other than CR and LF, so empty lines do not count.
        words: words in them; see `transforms.evaluation.statistics`.
        whole_words: those that a single token can express.
        encode_ns: processor time of encoding them, in nanoseconds. All else is the same in every run.
        counts: int64, shape (largest id that occurs + 1,): how often each id occurs.
    """

    documents: int = 0
    text_bytes: int = 0
    characters: int = 0
    lines: int = 0
    words: int = 0
    whole_words: int = 0
    encode_ns: int = 0
    counts: NDArray[np.int64] = dataclasses.field(default_factory=_no_counts)

    @property
    def tokens(self) -> int:
        return int(self.counts.sum())

    @property
    def types(self) -> int:
        """Different ids that occur."""
        return int(np.count_nonzero(self.counts))

    def occurrences(self, ids: Iterable[int]) -> int:
        """How often any of these ids occurs."""
        return sum(int(self.counts[token]) for token in ids if token < len(self.counts))

    def scalars(self) -> dict[str, int]:
        """All fields but `counts`."""
        return {name: getattr(self, name) for name in _SCALARS}

    def __add__(self, other: TokenStatistics) -> TokenStatistics:
        short, long = sorted((self.counts, other.counts), key=len)
        counts = long.copy()
        counts[: len(short)] += short
        mine, others = self.scalars(), other.scalars()
        return TokenStatistics(**{name: mine[name] + others[name] for name in _SCALARS}, counts=counts)


_SCALARS = tuple(field.name for field in dataclasses.fields(TokenStatistics) if field.name != "counts")


class StatisticsCoder(beam.coders.Coder):
    """Carries `TokenStatistics` as a line of JSON and the counts as little-endian int64."""

    def encode(self, value: TokenStatistics) -> bytes:
        return json.dumps(value.scalars()).encode() + b"\n" + value.counts.astype("<i8").tobytes()

    def decode(self, encoded: bytes) -> TokenStatistics:
        scalars, _, counts = encoded.partition(b"\n")
        return TokenStatistics(**json.loads(scalars), counts=np.frombuffer(counts, dtype="<i8").astype(np.int64))

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type[TokenStatistics]:
        return TokenStatistics


beam.coders.registry.register_coder(TokenStatistics, StatisticsCoder)


@beam.typehints.with_input_types(TokenStatistics)
@beam.typehints.with_output_types(TokenStatistics)
class SumStatistics(beam.CombineFn):
    """Adds `TokenStatistics`. An accumulator takes 8 bytes for each entry of the vocabulary.

    Example:
        >>> parts = [TokenStatistics(documents=1), TokenStatistics(documents=2)]
        >>> SumStatistics().apply(parts).documents
        3
    """

    def create_accumulator(self) -> TokenStatistics:
        return TokenStatistics()

    def add_input(self, accumulator: TokenStatistics, statistics: TokenStatistics) -> TokenStatistics:
        return accumulator + statistics

    def merge_accumulators(self, accumulators: Iterable[TokenStatistics]) -> TokenStatistics:
        return sum(accumulators, TokenStatistics())

    def extract_output(self, accumulator: TokenStatistics) -> TokenStatistics:
        return accumulator

    def get_accumulator_coder(self) -> StatisticsCoder:
        return StatisticsCoder()


def text_statistics(texts: pa.LargeStringArray) -> TokenStatistics:
    """The part of the statistics that no tokenizer changes, without the words."""
    return TokenStatistics(
        documents=len(texts),
        text_bytes=_total(pc.binary_length(texts)),
        characters=_total(pc.utf8_length(texts)),
        lines=_total(pc.count_substring_regex(texts, _LINE)),
    )


def _total(values: pa.Array) -> int:
    return int(pc.sum(values).as_py() or 0)


def count_ids(ids: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Ids, shape (tokens,), to how often each occurs: int64, shape (largest id + 1,)."""
    return np.bincount(ids).astype(np.int64)


@functools.cache
def word_pattern() -> re.Pattern[str]:
    r"""The pattern of a word: `\w+` as Unicode defines it, that is letters, marks, digits, connectors and joiners.

    UTS #18, "Unicode Regular Expressions", Annex C. Python's own `\w` leaves out the marks, and would cut words that
    have accents as combining characters, or vowel signs as in Hindi.

    >>> [len(word) for word in word_pattern().findall("Bro\u0308tchen, 2,5 kg l’E\u0301té")]
    [9, 1, 1, 2, 1, 4]
    """
    marks = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("M")]
    # The long class is slow to miss, so most characters that it lacks do not get that far.
    return re.compile(rf"(?:\w++|(?![\x00-\u02ff])[\u200c\u200d{''.join(map(_escaped, marks))}]++)++")


def _escaped(code: int) -> str:
    return f"\\U{code:08x}"


def count_words(texts: pa.LargeStringArray) -> Counter[str]:
    """How often each word occurs in texts, as they are spelled; a word is what `word_pattern` matches."""
    words: Counter[str] = Counter()
    for text in texts.to_pylist():
        words.update(word_pattern().findall(text))
    return words
