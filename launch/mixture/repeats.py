"""Datasets that a training reads several times: the passes, those that their configs allow, and their worth."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from launch.mixture.outlook import ComponentOutlook, Outlook
from transforms.budget.repeats import exact

WORTHWHILE_PASSES = 4
"""Up to here repeated tokens are worth nearly as much as new ones; see `RESEARCH`."""

RESEARCH = "Muennighoff et al. 2023, Scaling Data-Constrained Language Models, arXiv:2305.16264"

# Steps, shares and packing are no more exact than that.
_SLACK = Fraction(101, 100)


def beyond_their_configs(found: Outlook, tokens: int) -> list[str]:
    """Messages about the components that a training of `tokens` reads more often than `max_repeats` allows."""
    return [
        f"{one.name} is read {float(passes):.2f} times, and its config allows {most:g} (max_repeats)"
        for one, passes in _passes(found, tokens)
        if (most := one.component.max_repeats) is not None and passes > exact(most) * _SLACK
    ]


def beyond_what_is_worthwhile(found: Outlook, tokens: int) -> list[str]:
    """Messages about the components that a training of `tokens` reads more than four times."""
    return [
        f"{one.name} is read {float(passes):.2f} times: beyond {WORTHWHILE_PASSES} passes repeated tokens are worth "
        f"less and less ({RESEARCH})"
        for one, passes in _passes(found, tokens)
        if passes > WORTHWHILE_PASSES * _SLACK
    ]


def _passes(found: Outlook, tokens: int) -> Iterator[tuple[ComponentOutlook, Fraction]]:
    for one in found.components:
        yield one, found.epochs_after(one, tokens)


def wanted_tokens(found: Outlook) -> int:
    """Tokens that all passes over all components read, by their configs."""
    return sum(one.component.to_read for one in found.components)
