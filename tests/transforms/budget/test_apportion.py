from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.budget.apportion import apportion

TOTALS = st.integers(0, 10**13)
WEIGHTS = st.dictionaries(
    st.text(min_size=1, max_size=3), st.fractions(min_value=0, max_value=10**6), min_size=1, max_size=12
).filter(lambda weights: any(weights.values()))


def quotas(total, weights):
    whole = sum(weights.values())
    return {name: total * weight / whole for name, weight in weights.items()}


@given(TOTALS, WEIGHTS)
def test_sums_to_the_total_and_rounds_each_quota_down_or_up(total, weights):
    parts = apportion(total, weights)
    assert sum(parts.values()) == total
    assert list(parts) == list(weights)
    for name, quota in quotas(total, weights).items():
        assert floor(quota) <= parts[name] <= ceil(quota)


@given(TOTALS, WEIGHTS)
def test_the_largest_remainders_are_rounded_up_and_the_first_in_a_tie(total, weights):
    parts = apportion(total, weights)
    order = {name: place for place, name in enumerate(weights)}
    remainders = {name: quota - floor(quota) for name, quota in quotas(total, weights).items()}
    up = [name for name in weights if parts[name] > quotas(total, weights)[name]]
    down = [name for name in weights if name not in up]
    for name in up:
        assert all((-remainders[name], order[name]) < (-remainders[other], order[other]) for other in down)


@given(TOTALS, WEIGHTS, st.fractions(min_value=Fraction(1, 10**6), max_value=10**6))
def test_only_the_proportions_count(total, weights, factor):
    assert apportion(total, {name: weight * factor for name, weight in weights.items()}) == apportion(total, weights)


@given(st.integers(0, 10**6), st.lists(st.integers(1, 100), min_size=1, max_size=8))
def test_whole_quotas_stay_as_they_are(factor, weights):
    exact = {str(place): Fraction(weight) for place, weight in enumerate(weights)}
    assert list(apportion(factor * sum(weights), exact).values()) == [factor * weight for weight in weights]


def test_the_recipes_shares_of_a_total_that_they_do_not_divide():
    shares = {"a": Fraction(30, 100), "b": Fraction(50, 100), "c": Fraction(5, 100), "d": Fraction(5, 100)}
    shares["e"] = Fraction(10, 100)
    # Exact parts: 3.3, 5.5, 0.55, 0.55, 1.1. Nine are whole; the first two of the largest fractions get one more.
    assert apportion(11, shares) == {"a": 3, "b": 5, "c": 1, "d": 1, "e": 1}


def test_a_tie_goes_to_the_first():
    third = Fraction(1, 3)
    assert apportion(4, {"z": third, "a": third, "m": third}) == {"z": 2, "a": 1, "m": 1}


def test_a_weight_of_zero_gets_nothing():
    assert apportion(7, {"none": Fraction(0), "all": Fraction(1)}) == {"none": 0, "all": 7}


@pytest.mark.parametrize(
    ("total", "weights", "error", "message"),
    [
        (-1, {"a": Fraction(1)}, ValueError, "total is -1"),
        (1, {"a": Fraction(-1)}, ValueError, "the weight of 'a' is -1"),
        (1, {"a": Fraction(0)}, ValueError, "sum to 0"),
        (1, {}, ValueError, "sum to 0"),
        (1, {"a": 0.5}, TypeError, "the weight of 'a' is a float"),
    ],
)
def test_refuses_what_has_no_exact_answer(total, weights, error, message):
    with pytest.raises(error, match=message):
        apportion(total, weights)
