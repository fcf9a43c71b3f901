"""Shares into whole numbers that add up: the largest-remainder method."""

from collections.abc import Mapping
from fractions import Fraction
from math import floor


def apportion(total: int, weights: Mapping[str, Fraction]) -> dict[str, int]:
    """Divides `total` in proportion to `weights`, into integers that sum to `total` exactly.

    Hamilton's method of apportionment, also known as largest remainder or Hare-Niemeyer (M. L. Balinski and
    H. P. Young, *Fair Representation: Meeting the Ideal of One Man, One Vote*, 2nd ed., 2001): everybody gets the whole
    part of the exact quota, and the rest goes, one each, to the largest fractional parts. Ties go to whoever comes
    first.

    So every part is its quota rounded down or up. A larger `total` can make a single part smaller by one (the Alabama
    paradox): budgets belong to one total and are not prefixes of the budgets of another.

    Example:
      >>> apportion(10, {"german": Fraction(2, 3), "english": Fraction(1, 3)})
      {'german': 7, 'english': 3}

    Args:
        total: the number to divide, 0 or more.
        weights: exact, 0 or more, not all 0; they need not sum to 1. A weight of 0 gets 0.

    Returns:
        The parts, under the keys of `weights` and in their order.

    Raises:
        ValueError: `total` or a weight is negative, or the weights sum to 0.
        TypeError: a weight is a float, which is seldom the share that was meant.
    """
    if total < 0:
        raise ValueError(f"total is {total}; it must be 0 or more")
    for name, weight in weights.items():
        if not isinstance(weight, Fraction | int):
            raise TypeError(f"the weight of {name!r} is a {type(weight).__name__}; pass a fractions.Fraction")
        if weight < 0:
            raise ValueError(f"the weight of {name!r} is {weight}; it must be 0 or more")
    whole = sum(weights.values(), Fraction(0))
    if whole == 0:
        raise ValueError("the weights sum to 0; at least one must be more than 0")
    quotas = {name: Fraction(total) * weight / whole for name, weight in weights.items()}
    parts = {name: floor(quota) for name, quota in quotas.items()}
    # `sorted` is stable, so equal remainders stay in the order of `weights`.
    by_remainder = sorted(quotas, key=lambda name: parts[name] - quotas[name])
    for name in by_remainder[: total - sum(parts.values())]:
        parts[name] += 1
    return parts
