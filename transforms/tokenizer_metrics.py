"""What is measured of a tokenizer: metrics as pure functions of sufficient statistics, and their sums on Beam.

A `TokenStatistics` holds what a piece of a corpus contributes: sizes of the text, and how often each id came out. Two
of them add up to that of both pieces together, in any order, so that a corpus may be cut between any two documents.
Every metric follows from the sum. Memory is bounded by the vocabulary, not by the corpus.

`docs/evaluation.md` has the same definitions, with advice on how to read them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# Zouhar et al. 2023 found this order to go best with the quality of translations.
RENYI_ALPHA = 2.5

# Runs of anything but line ends, in RE2.
_LINE = r"[^\r\n]+"


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What has to be known of a tokenizer's vocabulary.

    Attributes:
        size: of all entries, special and unused ones included: the rows of an embedding matrix.
        unknown_ids: ids that stand for text which the vocabulary cannot express.
        byte_ids: ids that stand for one byte of a character: SentencePiece's byte pieces (`<0x0A>`), and in byte-level
            vocabularies the single bytes from 0x80, which are no characters of their own.
    """

    size: int
    unknown_ids: tuple[int, ...] = ()
    byte_ids: tuple[int, ...] = ()


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
        words: words in them; see `count_words`.
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


# --- Statistics of texts ----------------------------------------------------------------------------------------------


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


# --- Metrics ----------------------------------------------------------------------------------------------------------
# None stands for a metric that a text without tokens, words or lines does not have.


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def vocabulary_size(_: TokenStatistics, vocabulary: Vocabulary) -> float | None:
    """Entries of the vocabulary."""
    return vocabulary.size


def token_count(statistics: TokenStatistics, _: Vocabulary) -> float | None:
    """Tokens of the text; no BOS or EOS is added."""
    return statistics.tokens


def fertility(statistics: TokenStatistics, _: Vocabulary) -> float | None:
    """Tokens for each word: all tokens of the text, those of punctuation and space included.

    The mean number of subwords for a word: Rust et al. 2021, "How Good is Your Tokenizer? On the Monolingual
    Performance of Multilingual Language Models", who count over the words of treebanks; as a quotient over whole texts:
    Ali et al. 2024, "Tokenizer Choice For LLM Training: Negligible or Crucial?".
    """
    return _ratio(statistics.tokens, statistics.words)


def bytes_per_token(statistics: TokenStatistics, _: Vocabulary) -> float | None:
    """Bytes of the text in UTF-8, as it is in the source, for each token: compression, and mean token length in bytes.

    Goldman et al. 2024, "Unpacking Tokenization: Evaluating Text Compression and its Correlation with Model
    Performance".
    """
    return _ratio(statistics.text_bytes, statistics.tokens)


def characters_per_token(statistics: TokenStatistics, _: Vocabulary) -> float | None:
    """Code points of the text for each token: the mean token length in characters."""
    return _ratio(statistics.characters, statistics.tokens)


def tokens_per_line(statistics: TokenStatistics, _: Vocabulary) -> float | None:
    """Tokens for each line that is not empty."""
    return _ratio(statistics.tokens, statistics.lines)


def vocabulary_utilization(statistics: TokenStatistics, vocabulary: Vocabulary) -> float | None:
    """Share of the vocabulary that occurs in the text. It grows with the text."""
    return _ratio(statistics.types, vocabulary.size)


def type_token_ratio(statistics: TokenStatistics, _: Vocabulary) -> float | None:
    """Different tokens for each token (Templin 1957). It falls as the text grows: compare on one text only."""
    return _ratio(statistics.types, statistics.tokens)


def renyi_efficiency(
    statistics: TokenStatistics, vocabulary: Vocabulary, *, alpha: float = RENYI_ALPHA
) -> float | None:
    """Rényi entropy of the tokens' distribution, of order `alpha`, over the largest there can be, log(vocabulary size).

    Zouhar et al. 2023, "Tokenization and the Noiseless Channel". 1 is a uniform distribution over the whole
    vocabulary; very frequent tokens make it small. None for a vocabulary of fewer than two entries.

    Args:
        statistics: of the text.
        vocabulary: of the tokenizer.
        alpha: positive, and not 1 (the limit there is Shannon's entropy).
    """
    tokens = statistics.tokens
    if not tokens or vocabulary.size < 2:
        return None
    # An exactly rounded sum does not depend on how the counts are laid out.
    power = math.fsum((count / tokens) ** alpha for count in statistics.counts[statistics.counts > 0].tolist())
    return math.log(power) / (1 - alpha) / math.log(vocabulary.size) + 0.0  # no negative zero


def whole_word_share(statistics: TokenStatistics, _: Vocabulary) -> float | None:
    """Share of the words that a single token expresses, alone or with one space before.

    The complement of the proportion of continued words of Rust et al. 2021, over the words of the text.
    """
    return _ratio(statistics.whole_words, statistics.words)


def unknown_rate(statistics: TokenStatistics, vocabulary: Vocabulary) -> float | None:
    """Share of the tokens that stand for text which the vocabulary cannot express. Such text is lost."""
    return _ratio(statistics.occurrences(vocabulary.unknown_ids), statistics.tokens)


def byte_fallback_rate(statistics: TokenStatistics, vocabulary: Vocabulary) -> float | None:
    """Share of the tokens that stand for one byte, see `Vocabulary.byte_ids`: characters that are spelled out.

    SentencePiece calls such pieces byte fallback. Where a vocabulary has no newline (Llama 2, Mistral), every newline
    is such a token.
    """
    return _ratio(statistics.occurrences(vocabulary.byte_ids), statistics.tokens)


def encode_speed(statistics: TokenStatistics, _: Vocabulary) -> float | None:
    """Millions of bytes of text for each second of processor time spent encoding, on all threads together."""
    return _ratio(statistics.text_bytes * 1e3, statistics.encode_ns)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric and how it is shown.

    Attributes:
        key: its name in JSON and CSV.
        title: its name in tables and plots.
        better: which values are better; None where neither is.
        style: how to print it: a whole number, a decimal one, one of four decimals, or a share as a percentage.
        of: the definition.
    """

    key: str
    title: str
    better: Literal["lower", "higher"] | None
    style: Literal["whole", "decimal", "fine", "percent"]
    of: Callable[[TokenStatistics, Vocabulary], float | None]

    def best(self, values: Iterable[float | None]) -> str | None:
        """The best of the values, as it is shown; None where neither direction is better, or all look the same.

        >>> metric("fertility").best([1.501, 1.499, None, 2.0]), metric("fertility").best([1.501, 1.499])
        ('1.50', None)
        """
        known = [value for value in values if value is not None]
        if self.better is None or len({self.shown(value) for value in known}) < 2:
            return None
        return self.shown(min(known) if self.better == "lower" else max(known))

    def shown(self, value: float | None) -> str:
        """The value as text.

        >>> [Metric("a", "A", None, style, token_count).shown(0.5) for style in ("decimal", "fine", "percent")]
        ['0.50', '0.5000', '50.00 %']
        """
        if value is None:
            return "–"
        if self.style == "percent":
            return f"{100 * value:.2f} %"
        return {"whole": f"{value:,.0f}", "decimal": f"{value:,.2f}", "fine": f"{value:.4f}"}[self.style]


METRICS: tuple[Metric, ...] = (
    Metric("vocabulary_size", "vocabulary", None, "whole", vocabulary_size),
    Metric("tokens", "tokens", None, "whole", token_count),
    Metric("bytes_per_token", "bytes/token", "higher", "decimal", bytes_per_token),
    Metric("characters_per_token", "characters/token", "higher", "decimal", characters_per_token),
    Metric("fertility", "fertility", "lower", "decimal", fertility),
    Metric("whole_word_share", "whole words", "higher", "percent", whole_word_share),
    Metric("tokens_per_line", "tokens/line", "lower", "decimal", tokens_per_line),
    Metric("renyi_efficiency", "Rényi efficiency", "higher", "fine", renyi_efficiency),
    Metric("vocabulary_utilization", "vocabulary used", "higher", "percent", vocabulary_utilization),
    Metric("type_token_ratio", "types/token", None, "fine", type_token_ratio),
    Metric("unknown_rate", "unknown", "lower", "percent", unknown_rate),
    Metric("byte_fallback_rate", "byte fallback", "lower", "percent", byte_fallback_rate),
    Metric("encode_mb_per_s", "MB/s", "higher", "decimal", encode_speed),
)


def metric(key: str) -> Metric:
    """The metric of this name.

    Raises:
        KeyError: there is none.
    """
    return {metric.key: metric for metric in METRICS}[key]


def measure(statistics: TokenStatistics, vocabulary: Vocabulary) -> Mapping[str, float | None]:
    """All metrics by their names."""
    return {metric.key: metric.of(statistics, vocabulary) for metric in METRICS}
