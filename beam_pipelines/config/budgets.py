"""The budgets of a mix, from the shares and tokens of its datasets, and their sums."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from beam_pipelines.config.values import parse_budget, parse_share
from transforms.budget.apportion import apportion
from transforms.config.document import Problem
from transforms.errors import UsageError, listed
from transforms.quantities import format_count, format_percent, shown

# Shares that an error spells out.
_MOST_NAMED = 20


@dataclasses.dataclass(frozen=True, slots=True)
class DatasetBudget:
    """How many tokens to write of a dataset: exactly `train`, and exactly `eval` right after them."""

    train: int
    eval: int

    @property
    def total(self) -> int:
        """The tokens of both splits."""
        return self.train + self.eval


def budget_problems(
    total: Any, shares: Mapping[str, Any], tokens: Mapping[str, Any], datasets: int
) -> Iterator[Problem]:
    """The contradictions between the budgets of a mix, each of which may be of a wrong type.

    Args:
        total: `total_tokens`, or None.
        shares, tokens: of the datasets that have one, by name.
        datasets: how many there are.
    """
    if shares.keys() - tokens.keys() and tokens.keys() - shares.keys():
        yield Problem(
            ("datasets",),
            f"mixes share ({listed(shares)}) and tokens ({listed(tokens)}); give all "
            "datasets a share, with total_tokens, or all of them tokens",
        )
    elif shares and not tokens:
        if total is None:
            yield Problem(("total_tokens",), "is missing, and shares are shares of it; add `total_tokens: 200B`")
        if len(shares) == datasets:
            yield from _share_problems(total, shares)
    elif len(tokens) == datasets and not shares and total is not None:
        yield from _sum_problems(total, tokens)


def _share_problems(total: Any, shares: Mapping[str, Any]) -> Iterator[Problem]:
    exact = {name: _or_none(parse_share, share) for name, share in shares.items()}
    known = {name: share for name, share in exact.items() if share is not None}
    if len(known) != len(exact):
        return  # Reported where it is; a sum without it would only confuse.
    whole = sum(known.values(), Fraction(0))
    if whole != 1:
        most = [f"{name} {format_percent(share)}" for name, share in itertools.islice(known.items(), _MOST_NAMED)]
        parts = " + ".join(most) + (" + …" if len(known) > len(most) else "")
        off = f"{format_percent(abs(1 - whole))} too {'much' if whole > 1 else 'little'}"
        yield Problem(
            ("datasets",), f"has shares that add up to {format_percent(whole)}, {off}; make them 100%: {parts}"
        )
        return
    tokens = _or_none(parse_budget, total)
    if tokens is None:
        return
    for name, budget in apportion(tokens, known).items():
        if budget == 0:
            yield Problem(
                ("datasets", name, "share"),
                f"{format_percent(known[name])} of total_tokens {format_count(tokens)} is a budget of 0 tokens; raise "
                "one of the two, or leave the dataset out",
            )


def _sum_problems(total: Any, tokens: Mapping[str, Any]) -> Iterator[Problem]:
    wanted = _or_none(parse_budget, total)
    counts = [_or_none(parse_budget, count) for count in tokens.values()]
    known = [count for count in counts if count is not None]
    if wanted is not None and len(known) == len(counts) and sum(known) != wanted:
        yield Problem(
            ("total_tokens",),
            f"{shown(total)} is not the sum of the datasets' tokens, {format_count(sum(known))}; write that, or leave "
            "total_tokens out",
        )


def _or_none[T](parse: Callable[[Any], T], value: Any) -> T | None:
    try:
        return parse(value)
    except UsageError:
        return None
