"""The metrics of a tokenizer, as pure functions of a text's statistics and the vocabulary.

`docs/evaluation.md` has the same definitions, with advice on how to read them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from transforms.evaluation.statistics import TokenStatistics
from transforms.evaluation.vocabulary import Vocabulary

# Zouhar et al. 2023 found this order to go best with the quality of translations.
RENYI_ALPHA = 2.5

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
        if self.better is None or len({self.format_value(value) for value in known}) < 2:
            return None
        return self.format_value(min(known) if self.better == "lower" else max(known))

    def format_value(self, value: float | None) -> str:
        """The value as text.

        >>> [Metric("a", "A", None, style, token_count).format_value(0.5) for style in ("decimal", "fine", "percent")]
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
