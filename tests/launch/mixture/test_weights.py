"""A mixture's arithmetic, held against Grain's own mixing."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction

import grain.python as grain
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from launch.mixture.datasets import Component, default_shares
from launch.mixture.outlook import drawn, last_draw, outlook
from launch.mixture.weights import (
    eval_weights,
    grain_integers,
    record_weights,
    token_shares,
    wanted_integers,
    written_weights,
)
from transforms.errors import UsageError

NAMES = st.text("abcXYZ09._-", min_size=1, max_size=3)


def component(name: str, tokens: int, records: int, **others: int) -> Component:
    return Component(name, f"/data/{name}", tokens, records, shards=1, **({"budget": tokens} | others))


@st.composite
def mixtures(draw: st.DrawFn) -> tuple[list[Component], dict[str, Fraction]]:
    """Components of 50 to 2,048 tokens a record, and shares that add up to 1."""
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    components = []
    for name in names:
        records = draw(st.integers(1, 2000))
        components.append(component(name, draw(st.integers(50 * records, 2048 * records)), records))
    parts = [draw(st.integers(1, 30)) for _ in names]
    return components, {name: Fraction(part, sum(parts)) for name, part in zip(names, parts, strict=True)}


def grain_draws(weights: Mapping[str, float], records: Mapping[str, int | None], most: int) -> list[str]:
    """The names of the components in the order in which Grain draws from them, by weights of a mixture file.

    Components have as many records as `records` says, or no end.
    """
    total = sum(weights.values())
    datasets = {
        name: grain.MapDataset.range(count or 1).repeat(None if count is None else 1).map(lambda _, name=name: name)
        for name, count in records.items()
    }
    # Without threads that read ahead: there is nothing to read.
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    mixed = grain.IterDataset.mix(
        {name: dataset.to_iter_dataset(options) for name, dataset in datasets.items()},
        {name: weight / total for name, weight in weights.items()},
    )
    return list(itertools.islice(mixed, most))


def grain_proportions(weights: Mapping[str, float]) -> list[int]:
    """The integers that Grain makes of weights of a mixture file, in the order of their names."""
    total = sum(weights.values())
    datasets = {name: grain.MapDataset.range(1).to_iter_dataset() for name in weights}
    mixed = grain.IterDataset.mix(datasets, {name: weight / total for name, weight in weights.items()})
    return json.loads(str(mixed).partition("proportions=")[2].removesuffix(")"))


@given(st.dictionaries(NAMES, st.floats(1, 1e6), min_size=1, max_size=5))
@example({"a": 101.0, "b": 169.5, "c": 100.0})
def test_integers_are_those_of_grain(weights: dict[str, float]) -> None:
    """They are the same to the last bit: a smallest weight of 99.99… becomes 99."""
    assert grain_proportions(weights) == [integer for _, integer in sorted(grain_integers(weights).items())]


@pytest.mark.slow
@given(mixtures())
def test_grain_draws_by_the_integers_that_were_wanted(mixture: tuple[list[Component], dict[str, Fraction]]) -> None:
    integers = wanted_integers(record_weights(*mixture))
    weights = written_weights(integers)
    assert grain_integers(weights) == integers
    # Grain's order repeats after as many draws as the integers add up to.
    most = min(sum(integers.values()), 5000)
    draws = grain_draws(weights, dict.fromkeys(weights), most)
    names = sorted(weights)
    for count in {0, 1, most // 3, most}:
        counted = Counter(draws[:count])
        assert tuple(counted[name] for name in names) == drawn([integers[name] for name in names], count)
    assert drawn(list(integers.values()), sum(integers.values())) == tuple(integers.values())


@given(mixtures(), st.integers(1, 2))
def test_the_mixture_ends_where_grain_ends(mixture: tuple[list[Component], dict[str, Fraction]], epochs: int) -> None:
    components, shares = mixture
    found = outlook(components, shares, epochs)
    weights = {one.name: one.weight for one in found.components}
    most = 3000
    draws = grain_draws(weights, {one.name: one.records * epochs for one in components}, most)
    assert len(draws) == min(found.records, most)
    if found.records < most:
        counted = Counter(draws)
        assert all(one.epochs_at_end * one.component.records == counted[one.name] for one in found.components)
        assert found.first.epochs_at_end == epochs
        assert found.tokens == round(sum(one.mean * counted[one.name] for one in found.components))


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 10**9)), min_size=1, max_size=6))
def test_the_last_draw_is_the_last_that_each_component_can_serve(parts: list[tuple[int, int]]) -> None:
    integers, available = [part for part, _ in parts], [count for _, count in parts]
    for index, last in enumerate(last_draw(integers, available)):
        assert drawn(integers, last)[index] == available[index]
        assert drawn(integers, last + 1)[index] == available[index] + 1


@given(mixtures())
def test_expected_shares_are_close_to_those_that_were_wanted(
    mixture: tuple[list[Component], dict[str, Fraction]],
) -> None:
    components, shares = mixture
    expected = token_shares(wanted_integers(record_weights(components, shares)), components)
    assert sum(expected.values()) == 1
    for name, share in shares.items():
        # An integer of 100 or more is within half a one of what it should be, and so are all the others.
        assert abs(expected[name] - share) <= share * Fraction(1, 100)


@given(mixtures())
def test_datasets_mixed_as_they_are_end_together(mixture: tuple[list[Component], dict[str, Fraction]]) -> None:
    """Shares by the tokens that there are use everything up, but for what integers cannot say and a few records."""
    components, _ = mixture
    assert not outlook(components, default_shares(components)).left_over()


@given(mixtures())
def test_eval_weights_are_what_maxtext_rounds_to(mixture: tuple[list[Component], dict[str, Fraction]]) -> None:
    components, shares = mixture
    with_eval = [component(one.name, 1, 1, eval_tokens=one.tokens, eval_records=one.records) for one in components]
    weights = eval_weights(with_eval, shares)
    assert sum(weights.values()) == 1
    exact = record_weights(components, shares)
    total = sum(exact.values())
    for name, weight in weights.items():
        assert round(float(weight) / sum(map(float, weights.values())), 4) == float(weight)
        assert abs(weight - exact[name] / total) < Fraction(1, 10_000)


def test_weights_in_numbers() -> None:
    """Records of 100, 400 and 50 tokens, of which 2/5, 2/5 and 1/5 of the tokens are to come."""
    components = [component("short", 40_000, 400), component("long", 800_000, 2000), component("tiny", 50, 1)]
    shares = {"short": Fraction(2, 5), "long": Fraction(2, 5), "tiny": Fraction(1, 5)}
    weights = record_weights(components, shares)
    assert weights == {"short": 4, "long": 1, "tiny": 4}
    assert wanted_integers(weights) == {"short": 400, "long": 100, "tiny": 400}
    assert written_weights({"short": 400, "long": 100, "tiny": 400}) == {"short": 400.5, "long": 100.0, "tiny": 400.5}
    assert written_weights({"one": 100, "like the other": 100}) == {"one": 100.0, "like the other": 100.5}
    # 500 records of 100 tokens, 100 of 400, 200 of 50
    assert token_shares({"short": 500, "long": 100, "tiny": 200}, components) == {
        "short": Fraction(1, 2),
        "long": Fraction(2, 5),
        "tiny": Fraction(1, 10),
    }


def test_the_wanted_integers_are_the_nearest() -> None:
    """This holds for any smallest weight."""
    weights = {"below": Fraction(10_049, 5000), "above": Fraction(10_051, 5000), "smallest": Fraction(2)}
    assert wanted_integers(weights) == {"below": 100, "above": 101, "smallest": 100}


@pytest.mark.parametrize(
    ("integer", "weight"),
    [
        (101, 101.5),
        (169, 169.49),
        (1063, 1063.51),
        (2963, 2963.48),
        (10_848, 10_848.52),
        # No hundredth does.
        (345_959_867, 345_959_867.4999),
        (334_250_738, 334_250_738.5004),
    ],
)
def test_weights_that_would_be_rounded_to_one_less_are_not_written(integer: int, weight: float) -> None:
    weights = written_weights({"other": integer, "smallest": 100})
    assert weights == {"other": weight, "smallest": 100.0}
    assert grain_proportions(weights) == [integer, 100]
    if weight % 1 != 0.5:
        assert grain_proportions({"other": integer + 0.5, "smallest": 100.0}) == [integer, 99]


def test_weights_that_floats_cannot_tell_apart_are_refused() -> None:
    with pytest.raises(UsageError, match="rare would be drawn once for 1,000,000,000,000,000 records of common, which"):
        written_weights({"rare": 100, "common": 10**17 + 1})


def test_an_outlook_in_numbers() -> None:
    """Half of the tokens each, records of 100 and 400 tokens: four records of the one for each of the other."""
    short, long = component("short", 40_000, 400), component("long", 800_000, 2000)
    found = outlook([short, long], {"short": Fraction(1, 2), "long": Fraction(1, 2)}, epochs=3)
    assert [(one.name, one.integer, one.weight, one.share) for one in found.components] == [
        ("short", 400, 400.5, Fraction(1, 2)),
        ("long", 100, 100.0, Fraction(1, 2)),
    ]
    # Grain begins with the first by name, so that 1,200 records of the one come with 301 of the other.
    assert (found.records, found.tokens, found.record_tokens) == (1501, 240_400, Fraction(160))
    assert found.first.name == "short"
    assert [one.name for one in found.left_over()] == ["long"]
    one, other = found.components
    assert (one.epochs_at_end, other.epochs_at_end) == (Fraction(3), Fraction(301, 2000))
    assert other.lasts == 30_000  # every fifth, the first of all included: the next would be its 6,001st
    assert (found.epochs_after(one, 500_000), found.epochs_after(other, 500_000)) == (
        Fraction(25, 4),
        Fraction(5, 16),
    )
    assert (found.epochs_needed(500_000), found.epochs_needed(1)) == (7, 1)


def test_shares_are_those_of_the_budgets_where_a_source_was_short() -> None:
    assert default_shares([component("a", 10, 1, budget=30), component("b", 10, 1)]) == {
        "a": Fraction(3, 4),
        "b": Fraction(1, 4),
    }


def test_eval_weights_in_numbers() -> None:
    """The records of the eval splits decide, of 10, 30 and 60 tokens, and not those of the train splits."""
    components = [
        component("a", 7, 1, eval_tokens=100, eval_records=10),
        component("b", 70, 1, eval_tokens=30, eval_records=1),
        component("c", 700, 1, eval_tokens=300, eval_records=5),
    ]
    shares = {"a": Fraction(1, 6), "b": Fraction(1, 2), "c": Fraction(1, 3)}
    # In proportion to 3, 3 and 1, in ten-thousandths: the rest goes to the largest remainder.
    assert eval_weights(components, shares) == {
        "a": Fraction(4286, 10_000),
        "b": Fraction(4286, 10_000),
        "c": Fraction(1428, 10_000),
    }
    assert eval_weights(components[1:2], {"b": Fraction(1)}) == {"b": 1}


def test_eval_weights_need_eval_splits_of_some_weight() -> None:
    halves = {"a": Fraction(1, 2), "b": Fraction(1, 2)}
    one = component("a", 10, 1, eval_tokens=10, eval_records=10)
    with pytest.raises(UsageError, match=r"^b has no eval split \(/data/b\); build it with eval_tokens"):
        eval_weights([one, component("b", 10, 1)], halves)
    # 9,999 records of the one for each of the other can still be said.
    long = component("b", 10, 1, eval_tokens=9999, eval_records=1)
    assert eval_weights([one, long], halves) == {"a": Fraction(9999, 10_000), "b": Fraction(1, 10_000)}
    longer = component("b", 10, 1, eval_tokens=100_000, eval_records=1)
    with pytest.raises(UsageError, match=r"^b: its weight in the evaluation is below a ten-thousandth"):
        eval_weights([one, longer], halves)


def test_the_last_draw_of_more_records_than_64_bits_count() -> None:
    integers, available = [1, 2**33], [2**63 - 1, 2**63 - 1]
    for index, last in enumerate(last_draw(integers, available)):
        assert drawn(integers, last)[index] == available[index]
        assert drawn(integers, last + 1)[index] == available[index] + 1
