"""Sources that are smaller than their budget, and are read several times: the tokens written once, and the passes.

The splits that are held out keep their exact tokens and are never repeated; the train split gets all the rest, once.
Pure arithmetic, exact.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from fractions import Fraction

REPEATED = "train"
"""The split that a training may read several times."""

MOST_REPEATS = 100
"""The largest `max_repeats`."""


def once(budgets: Mapping[str, int], available: int) -> dict[str, int] | None:
    """The tokens of each split where a source that is too small for the budgets is written once.

    Args:
        budgets: tokens by split, in the order in which the splits lie in the stream.
        available: tokens of the whole source.

    Returns:
        them in the same order, adding up to `available`; None where the source holds the budgets, or holds no token
        beside the splits that are held out.

    >>> once({"train": 100, "eval": 5}, 40), once({"train": 100, "eval": 5}, 105), once({"train": 100, "eval": 5}, 5)
    ({'train': 35, 'eval': 5}, None, None)
    """
    left = available - sum(tokens for split, tokens in budgets.items() if split != REPEATED)
    if not 0 < left < budgets.get(REPEATED, 0):
        return None
    return {split: left if split == REPEATED else tokens for split, tokens in budgets.items()}


def beyond(budget: int, tokens: int, max_repeats: float) -> int:
    """How much of a budget is out of reach of `tokens` that are read `max_repeats` times at most.

    >>> beyond(100, 40, 2.5), beyond(100, 39, 2.5), beyond(100, 40, 3)
    (0, 3, 0)
    """
    return max(0, budget - math.floor(tokens * exact(max_repeats)))


def passes(budget: int, missing: int, tokens: int) -> float:
    """How often `tokens` are to be read, for a budget less the tokens `missing` of it.

    >>> passes(302, 0, 100)
    3.02
    """
    return (budget - missing) / tokens


def exact(max_repeats: float) -> Fraction:
    """A `max_repeats` as it was written, in decimals.

    >>> exact(1.1), exact(4)
    (Fraction(11, 10), Fraction(4, 1))
    """
    return Fraction(str(max_repeats))


@dataclasses.dataclass(frozen=True)
class ExpectedPasses:
    """How often an estimated source would have to be read for its budget; infinite where nothing may be left to repeat.

    Below 1 where the source holds more.
    """

    expected: float
    least: float
    most: float

    def __str__(self) -> str:
        if math.isinf(self.most):
            return f"{self.least:.2f} or more" if self.least < math.inf else "no number of"
        return f"{self.expected:.2f}" if self.least == self.most else f"{self.least:.2f} to {self.most:.2f}"


def expected_passes(budgets: Mapping[str, int], available: int, error: int) -> ExpectedPasses:
    """The passes that the train split would take, by an estimate of its source.

    Args:
        budgets: tokens by split.
        available: tokens of the source, which may be off by `error`.

    >>> str(expected_passes({"train": 100, "eval": 10}, 60, 10)), str(expected_passes({"train": 100}, 40, 0))
    ('1.67 to 2.50', '2.50')
    """
    budget = budgets[REPEATED]
    left = available - sum(tokens for split, tokens in budgets.items() if split != REPEATED)
    expected, least, most = (
        budget / tokens if tokens > 0 else math.inf for tokens in (left, left + error, left - error)
    )
    return ExpectedPasses(expected, least, most)
