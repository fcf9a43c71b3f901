"""How many tokens the bytes of a source make, and how far that may be off. Pure arithmetic.

The unread part is estimated, and an estimate carries its error: three standard errors, from how much the parts that
were looked at differ, plus a percent or two for what no sample shows. A few parts that agree by chance say less than
many: how much parts may differ is held to be a fifth at first, as if two of them had been seen to.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
import statistics
from collections.abc import Sequence

_STANDARD_ERRORS = 3.0
_FIRST_SPREAD, _FIRST_UNITS = 0.2, 2
# Pieces are cut off in the midst of words, and footers count the headers of pages as text.
_SAMPLE_FLOOR = 0.01
_MEASURED_FLOOR = 0.02
# Parts whose mean is taken for that of the one in the middle.
_SMOOTHED = 3


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Tokens for each byte of the text column before compression.

    Attributes:
        tokens_per_byte: BOS and EOS included, above 0.
        error: how far that may be off in the whole source as a share of it: 0.1 is ±10 %.
        spread: how much neighbouring parts differ, as a share of it (a standard deviation).
        steps: of the parts, in the order of reading: (bytes, tokens per byte). Each is by itself less sure.
    """

    tokens_per_byte: float
    error: float = 0.0
    spread: float = 0.0
    steps: tuple[tuple[int, float], ...] = ()

    def tokens(self, text_bytes: int) -> tuple[int, int]:
        """(tokens, error) to expect in so many bytes."""
        expected = text_bytes * self.tokens_per_byte
        return round(expected), math.ceil(expected * self.error)


def sampled_ratio(
    tokens_per_byte: float,
    parts: Sequence[tuple[int, float]],
    pieces: Sequence[float],
    *,
    encoded: float,
    decoded: float,
) -> Ratio:
    """The ratio of a sample with its error.

    Args:
        tokens_per_byte: the estimate.
        parts: of the source that were looked at, in the order of reading: (bytes that each stands for, tokens per
            byte).
        pieces: the tokens per byte of each piece of text that was encoded; spread over the decoded text.
        encoded: the share of all text that the pieces are.
        decoded: the share of all text from which they were taken: of the rest only the size is known.
    """
    ratios = [ratio / tokens_per_byte for _, ratio in parts]
    differences = [(after - before) ** 2 / 2 for before, after in itertools.pairwise(ratios)]
    variance = 0.0
    if encoded < 1:
        mean = sum(pieces) / max(1, len(pieces)) or 1.0
        variance = _pooled([(piece / mean - 1) ** 2 for piece in pieces]) ** 2 / max(1, len(pieces)) * (1 - encoded)
        between = _pooled([(ratio - 1) ** 2 for ratio in ratios])
        variance += between**2 / max(1, len(parts)) * max(0.0, 1 - decoded)
    return Ratio(
        tokens_per_byte,
        (encoded < 1) * _SAMPLE_FLOOR + _STANDARD_ERRORS * math.sqrt(variance),
        _pooled([0.0, *differences]),
        tuple(parts),
    )


def expect(sizes: Sequence[int], counted: Sequence[int], sampled: Ratio, missing: int) -> tuple[list[float], float]:
    """An estimate for shards, by those before them that were counted and by the sample.

    The level is that of the counted ones. The rest may be of another kind: so far as the sample shows that, beyond
    the effect of chance, it is expected.

    Args:
        sizes: bytes of all shards.
        counted: the tokens of the first of them.
        missing: how many tokens those that follow should hold.

    Returns:
        the tokens of each that follows, and how far they may be off together, as a share of it.
    """
    local = _local_ratios(sizes, sampled)
    before, rest = sizes[: len(counted)], sizes[len(counted) :]
    units = len(sampled.steps) / max(1, sum(size for size, _ in sampled.steps))  # of the sample, for each byte
    level, where, error, units_before = sampled.tokens_per_byte, sampled.tokens_per_byte, sampled.error, float("inf")
    if sum(counted) and sum(before):
        level = sum(counted) / sum(before)
        # Of parts in which the sample saw nothing that a filter keeps, it says nothing of how others differ from them.
        where = sum(ratio * size for ratio, size in zip(local, before, strict=False)) / sum(before) or where
        mean = sum(before) / len(before)
        squares = [
            size / mean * (count / size / level - 1) ** 2 for count, size in zip(counted, before, strict=True) if size
        ]
        following = max(1.0, missing / level / mean)
        error = _MEASURED_FLOOR + _STANDARD_ERRORS * _pooled(squares) * math.sqrt(1 / len(squares) + 1 / following)
        units_before = max(1.0, units * sum(before))
    chance = sampled.spread**2 * (1 / units_before + 1 / _SMOOTHED)
    expected = []
    for size, ratio in zip(rest, local[len(counted) :], strict=True):
        other = ratio / where - 1
        expected.append(size * level * (1 + other * (other**2 / (other**2 + chance) if chance else 1.0)))
    units_after = max(1.0, units * missing / level)
    return expected, error + sampled.spread * math.sqrt(1 / units_before + 1 / units_after)


def _local_ratios(sizes: Sequence[int], sampled: Ratio) -> list[float]:
    """The sampled ratio of each shard: that of the step in which its middle lies, with those beside it."""
    steps = [ratio for _, ratio in sampled.steps]
    smooth = [
        statistics.fmean(steps[max(0, number - _SMOOTHED // 2) : number + _SMOOTHED // 2 + 1])
        for number in range(len(steps))
    ]
    ends = list(itertools.accumulate(size for size, _ in sampled.steps))
    middles = (end - size / 2 for end, size in zip(itertools.accumulate(sizes), sizes, strict=True))
    numbers = (bisect.bisect_right(ends, middle) for middle in middles)
    return [smooth[number] if number < len(smooth) else sampled.tokens_per_byte for number in numbers]


def _pooled(squares: Sequence[float]) -> float:
    """A standard deviation from squared deviations and the one assumed before there are any."""
    return math.sqrt((_FIRST_UNITS * _FIRST_SPREAD**2 + sum(squares)) / (_FIRST_UNITS + max(0, len(squares) - 1)))
