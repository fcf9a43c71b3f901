"""The outlook of a mixture: the shares that Grain's integers give, which component ends first, and when.

Grain draws records in an order that is fixed, so that all of it follows from the integers of `weights` and the records
that there are. Exact arithmetic, without I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from launch.mixture.datasets import Component, Shares
from launch.mixture.weights import record_weights, token_shares, wanted_integers, written_weights

# Components that end within a hundredth of each other end together: the integers are no finer than that.
_TOGETHER = Fraction(1, 100)


@dataclass(frozen=True)
class ComponentOutlook:
    """The outlook of one component.

    Attributes:
        wanted: its share of the tokens, as asked for.
        share: the share that Grain's integers give it, in the long run.
        weight: as the mixture file has it.
        integer: Grain's, for the weight.
        lasts: the records that the mixture yields, of all components, before this one has no more to give.
        lasts_tokens: how many tokens that is, by the means of the components.
        epochs_at_end: how often it has been read when the mixture ends, which is when the first component ends.
    """

    component: Component
    wanted: Fraction
    share: Fraction
    weight: float
    integer: int
    lasts: int
    lasts_tokens: int
    epochs_at_end: Fraction

    @property
    def name(self) -> str:
        return self.component.name

    @property
    def mean(self) -> Fraction:
        """Tokens a record."""
        return Fraction(self.component.tokens, self.component.records)


@dataclass(frozen=True)
class Outlook:
    """The outlook of a mixture, read `epochs` times at most (MaxText's `num_epoch`).

    Attributes:
        components: in the order of the mixture file.
        records: that it yields before it ends.
        tokens: how many tokens that is, by the means of the components.
    """

    components: tuple[ComponentOutlook, ...]
    epochs: int
    records: int
    tokens: int

    @property
    def first(self) -> ComponentOutlook:
        """The component that runs out first, and ends the mixture."""
        return min(self.components, key=lambda one: one.lasts)

    @property
    def record_tokens(self) -> Fraction:
        """Tokens a record of the mixture, in the long run."""
        return _record_tokens(
            {one.name: one.integer for one in self.components}, [one.component for one in self.components]
        )

    def left_over(self) -> list[ComponentOutlook]:
        """The components of which much is left when the mixture ends: more than 1 %, and than a few records."""
        return [
            one
            for one in self.components
            if (left := self.epochs - one.epochs_at_end) > self.epochs * _TOGETHER
            and left * one.component.records > len(self.components)
        ]

    def epochs_after(self, one: ComponentOutlook, tokens: int) -> Fraction:
        """How often a component is read while the mixture yields `tokens`, were it repeated as often as that takes."""
        return tokens * one.share / one.component.tokens

    def epochs_needed(self, tokens: int) -> int:
        """The `num_epoch` with which the mixture yields `tokens`, about."""
        return max(1, *(math.ceil(self.epochs_after(one, tokens)) for one in self.components))


def _record_tokens(integers: Mapping[str, int], components: Sequence[Component]) -> Fraction:
    tokens = (Fraction(integers[one.name] * one.tokens, one.records) for one in components)
    return sum(tokens, Fraction(0)) / sum(integers.values())


def drawn(integers: Sequence[int], draws: int) -> tuple[int, ...]:
    """How many of the first `draws` records come from each component, in Grain's order of drawing.

    The first component gets its part of the draws, rounded up; the rest goes to the others in the same way.

    >>> drawn([3, 1], 6)
    (5, 1)
    """
    counts = []
    left, remaining = draws, sum(integers)
    for integer in integers:
        others = left * (remaining - integer) // remaining
        counts.append(left - others)
        left, remaining = others, remaining - integer
    return tuple(counts)


def last_draw(integers: Sequence[int], available: Sequence[int]) -> tuple[int, ...]:
    """The records that the mixture yields before it asks a component for more than is available, for each."""
    total = sum(integers)
    # No component is more than one record for each before it away from its part of the draws.
    slack = (len(integers) + 1) * total
    found = []
    for index, (integer, records) in enumerate(zip(integers, available, strict=True)):
        # By bisection, which `bisect` does no further than 64 bits reach.
        enough, too_many = 0, (records * total + slack) // integer + 2
        while too_many - enough > 1:
            draws = (enough + too_many) // 2
            enough, too_many = (draws, too_many) if drawn(integers, draws)[index] <= records else (enough, draws)
        found.append(enough)
    return tuple(found)


def outlook(components: Sequence[Component], shares: Shares, epochs: int = 1) -> Outlook:
    """The outlook of a mixture of these components, each read `epochs` times at most."""
    integers = wanted_integers(record_weights(components, shares))
    weights, expected = written_weights(integers), token_shares(integers, components)
    # Grain draws from named components in the order of their names.
    ordered = sorted(components, key=lambda component: component.name)
    in_order = [integers[component.name] for component in ordered]
    lasts = last_draw(in_order, [component.records * epochs for component in ordered])
    end = min(lasts)
    lasts_by_name = {component.name: draws for component, draws in zip(ordered, lasts, strict=True)}
    drawn_by_name = {component.name: count for component, count in zip(ordered, drawn(in_order, end), strict=True)}
    record_tokens = _record_tokens(integers, components)
    return Outlook(
        tuple(
            ComponentOutlook(
                component=component,
                wanted=shares[component.name],
                share=expected[component.name],
                weight=weights[component.name],
                integer=integers[component.name],
                lasts=lasts_by_name[component.name],
                lasts_tokens=int(lasts_by_name[component.name] * record_tokens),
                epochs_at_end=Fraction(drawn_by_name[component.name], component.records),
            )
            for component in components
        ),
        epochs,
        end,
        round(
            sum(
                drawn_by_name[component.name] * Fraction(component.tokens, component.records)
                for component in components
            )
        ),
    )
