"""A mixture's arithmetic: from wanted token shares to MaxText's weights, and what Grain draws by them until data ends.

MaxText weighs *records*, while a share is of *tokens*: a component's weight is its share divided by its mean tokens a
record. Grain then makes integers of the weights, 100 for the smallest and the others rounded down
(`grain/_src/python/dataset/transformations/mix.py`, 0.2.18), and draws by these. All that is said here about shares and
ends follows from the integers, by exact arithmetic.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from transforms.errors import UsageError
from transforms.largest_remainder import apportion
from transforms.quantities import parse_percent

Shares = Mapping[str, Fraction]
"""Wanted shares of the tokens, by component; they add up to 1."""

# What Grain scales the smallest weight to.
_SMALLEST = 100
# MaxText rounds the weights of evaluation files to four decimals.
_EVAL_UNITS = 10_000
# Components that end within a hundredth of each other end together: the integers are no finer than that.
_TOGETHER = Fraction(1, 100)


@dataclass(frozen=True)
class Component:
    """One dataset of a mixture, as its manifest counts it.

    Attributes:
        name: its name in the mixture.
        folder: where it lies, a local path or gs://….
        tokens, records, shards: of the train split.
        budget: the tokens that its config wanted for the train split; more than `tokens` where the source was short.
        eval_tokens, eval_records, eval_shards: of the eval split; 0 where there is none.
    """

    name: str
    folder: str
    tokens: int
    records: int
    shards: int
    budget: int
    eval_tokens: int = 0
    eval_records: int = 0
    eval_shards: int = 0


@dataclass(frozen=True)
class ComponentOutlook:
    """What becomes of one component.

    Attributes:
        wanted: its share of the tokens, as asked for.
        share: the share that Grain's integers give it, in the long run.
        weight: as the mixture file has it.
        integer: what Grain makes of the weight.
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
    """What becomes of a mixture, read `epochs` times at most (MaxText's `num_epoch`).

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


def default_shares(components: Sequence[Component]) -> dict[str, Fraction]:
    """The shares that the configs of the components wanted: by the budgets of their train splits."""
    total = sum(component.budget for component in components)
    return {component.name: Fraction(component.budget, total) for component in components}


def parse_percents(percents: Sequence[str]) -> tuple[Fraction, ...]:
    """Shares that are written in percent, with or without the sign, as exact fractions: `["66.7", "33.3%"]`.

    Raises:
        UsageError: one is no percentage or is 0, or they do not add up to 100.
    """
    shares = tuple(parse_percent(f"{percent.strip().removesuffix('%')}%") for percent in percents)
    if 0 in shares:
        raise UsageError(f"a share of {', '.join(percents)} is 0; leave the dataset out instead")
    if (total := sum(shares)) != 1:
        raise UsageError(f"the shares {', '.join(percents)} add up to {float(total * 100):.10g} %, not to 100 %")
    return shares


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
    """
    smallest = min(integers, key=lambda name: integers[name])
    return next(
        weights
        for hundredths in sorted(range(10, 91), key=lambda hundredths: abs(hundredths - 50))
        if grain_integers(weights := _between(integers, smallest, hundredths / 100)) == dict(integers)
    )


def _between(integers: Mapping[str, int], smallest: str, fraction: float) -> dict[str, float]:
    """The integers, and all but the smallest by a fraction more."""
    return {name: float(integer) if name == smallest else integer + fraction for name, integer in integers.items()}


def grain_integers(weights: Mapping[str, float]) -> dict[str, int]:
    """What Grain makes of the weights of a mixture file, after MaxText has divided them by their sum, in floats."""
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


def token_shares(integers: Mapping[str, int], components: Sequence[Component]) -> dict[str, Fraction]:
    """The shares of the train tokens that integers give, in the long run."""
    tokens = {one.name: Fraction(integers[one.name] * one.tokens, one.records) for one in components}
    total = sum(tokens.values())
    return {name: part / total for name, part in tokens.items()}


def _record_tokens(integers: Mapping[str, int], components: Sequence[Component]) -> Fraction:
    tokens = (Fraction(integers[one.name] * one.tokens, one.records) for one in components)
    return sum(tokens, Fraction(0)) / sum(integers.values())


def drawn(integers: Sequence[int], draws: int) -> tuple[int, ...]:
    """How many of the first `draws` records come from each component, in Grain's order of drawing.

    The first component gets its part of the draws, rounded up; what is left goes to the others in the same way.

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
    """For each component, how many records the mixture yields before it asks that one for more than is available."""
    total = sum(integers)
    # No component is more than one record for each before it away from its part of the draws.
    slack = (len(integers) + 1) * total
    return tuple(
        bisect.bisect_right(
            range((records * total + slack) // integer + 2),
            records,
            key=lambda draws, index=index: drawn(integers, draws)[index],  # type: ignore[misc]
        )
        - 1
        for index, (integer, records) in enumerate(zip(integers, available, strict=True))
    )


def outlook(components: Sequence[Component], shares: Shares, epochs: int = 1) -> Outlook:
    """What becomes of a mixture of these components, each read `epochs` times at most."""
    integers = wanted_integers(record_weights(components, shares))
    weights, expected = written_weights(integers), token_shares(integers, components)
    # Grain draws from named components in the order of their names.
    ordered = sorted(components, key=lambda one: one.name)
    in_order = [integers[one.name] for one in ordered]
    lasts = last_draw(in_order, [one.records * epochs for one in ordered])
    end = min(lasts)
    lasts_by_name = {one.name: draws for one, draws in zip(ordered, lasts, strict=True)}
    drawn_by_name = {one.name: count for one, count in zip(ordered, drawn(in_order, end), strict=True)}
    record_tokens = _record_tokens(integers, components)
    return Outlook(
        tuple(
            ComponentOutlook(
                component=one,
                wanted=shares[one.name],
                share=expected[one.name],
                weight=weights[one.name],
                integer=integers[one.name],
                lasts=lasts_by_name[one.name],
                lasts_tokens=int(lasts_by_name[one.name] * record_tokens),
                epochs_at_end=Fraction(drawn_by_name[one.name], one.records),
            )
            for one in components
        ),
        epochs,
        end,
        round(sum(drawn_by_name[one.name] * Fraction(one.tokens, one.records) for one in components)),
    )
