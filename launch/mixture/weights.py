"""From wanted shares of the tokens to MaxText's weights, and to the integers that Grain makes of them.

MaxText weighs *records*, while a share is of *tokens*: a component's weight is its share divided by its mean tokens a
record. Grain then makes integers of the weights, 100 for the smallest and the others rounded down
(`grain/_src/python/dataset/transformations/mix.py`, 0.2.18), and draws by these. Exact arithmetic, without I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from launch.mixture.datasets import Component, Shares
from transforms.budget.apportion import apportion
from transforms.errors import UsageError

# Grain scales the smallest weight to this.
_SMALLEST = 100
# MaxText rounds the weights of evaluation files to four decimals.
_EVAL_DECIMALS = 4
_EVAL_UNITS = 10**_EVAL_DECIMALS


def record_weights(components: Sequence[Component], shares: Shares) -> dict[str, Fraction]:
    """Exact weights a record, of which the smallest is 1: in proportion to share ÷ mean tokens a record."""
    raw = {one.name: shares[one.name] * one.records / one.tokens for one in components}
    smallest = min(raw.values())
    return {name: weight / smallest for name, weight in raw.items()}


def wanted_integers(weights: Mapping[str, Fraction]) -> dict[str, int]:
    """The integers nearest to the weights, scaled so that the smallest is 100, as Grain scales it.

    >>> wanted_integers({"a": Fraction(10, 3), "b": Fraction(1)})
    {'a': 333, 'b': 100}
    """
    smallest = min(weights.values())
    return {name: round(weight * _SMALLEST / smallest) for name, weight in weights.items()}


def written_weights(integers: Mapping[str, int]) -> dict[str, float]:
    """Weights of which MaxText and Grain make just these integers, whose smallest is 100.

    Grain rounds down, so that a weight in the middle between two integers is safe from errors of floating point. The
    smallest cannot be: it is divided by itself and multiplied by 100, which may give 99.99…. Whether it does depends on
    the sum of all weights, by which MaxText divides, so one is chosen with which it does not.

    >>> written_weights({"a": 333, "b": 100})
    {'a': 333.5, 'b': 100.0}

    Raises:
        UsageError: they are too far apart for floats.
    """
    smallest = min(integers, key=lambda name: integers[name])
    # Hundredths nearly always do. From some 300,000,000 on it may be that none does.
    for parts in (100, 10_000):
        for part in sorted(range(parts), key=lambda part: abs(2 * part - parts)):
            weights = _between(integers, smallest, part / parts)
            if grain_integers(weights) == integers:
                return weights
    largest = max(integers, key=lambda name: integers[name])
    raise UsageError(
        f"{smallest} would be drawn once for {integers[largest] // integers[smallest]:,} records of {largest}, which "
        f"MaxText's weights cannot say; give {smallest} a larger share, or leave it out"
    )


def _between(integers: Mapping[str, int], smallest: str, fraction: float) -> dict[str, float]:
    """The integers, and all but the smallest by a fraction more."""
    return {name: float(integer) if name == smallest else integer + fraction for name, integer in integers.items()}


def grain_integers(weights: Mapping[str, float]) -> dict[str, int]:
    """Grain's integers for the weights of a mixture file, after MaxText has divided them by their sum, in floats."""
    total = sum(weights.values())
    parts = {name: weight / total for name, weight in weights.items()}
    scale = _SMALLEST / min(parts.values())
    return {name: int(part * scale) for name, part in parts.items()}


def eval_weights(components: Sequence[Component], shares: Shares) -> dict[str, Fraction]:
    """Weights a record of the eval splits that add up to 1, in the ten-thousandths that MaxText rounds to.

    Raises:
        UsageError: a component has no eval split, or so small a weight that MaxText would take it for 0.
    """
    for one in components:
        if not one.eval_tokens:
            raise UsageError(
                f"{one.name} has no eval split ({one.folder}); build it with eval_tokens, leave the dataset out, or do "
                "without evaluation"
            )
    raw = {one.name: shares[one.name] * one.eval_records / one.eval_tokens for one in components}
    parts = apportion(_EVAL_UNITS, raw)
    for name, part in parts.items():
        if not part:
            raise UsageError(
                f"{name}: its weight in the evaluation is below a ten-thousandth, which MaxText rounds to 0; leave the "
                "dataset out"
            )
    return {name: Fraction(part, _EVAL_UNITS) for name, part in parts.items()}


def eval_integers(components: Sequence[Component], shares: Shares) -> dict[str, int]:
    """Grain's integers for the weights of evaluation files, after MaxText has rounded them to four decimals.

    Raises:
        UsageError: see `eval_weights`.
    """
    weights = {name: float(weight) for name, weight in eval_weights(components, shares).items()}
    total = sum(weights.values())
    parts = {name: round(weight / total, _EVAL_DECIMALS) for name, weight in weights.items()}
    scale = _SMALLEST / min(parts.values())
    return {name: int(part * scale) for name, part in parts.items()}


def token_shares(integers: Mapping[str, int], components: Sequence[Component]) -> dict[str, Fraction]:
    """The shares of the train tokens that integers give, in the long run."""
    tokens = {one.name: Fraction(integers[one.name] * one.tokens, one.records) for one in components}
    total = sum(tokens.values())
    return {name: part / total for name, part in tokens.items()}
