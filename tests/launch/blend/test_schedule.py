"""Which dataset each sequence comes from: no prefix is a whole sequence off."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.blend import schedule
from tests.support.examples import at_most

RECIPE = [Fraction(part, 100) for part in (30, 50, 5, 5, 10)]


def worst(ids: np.ndarray, shares: list[Fraction]) -> Fraction:
    """How far a dataset is off after any number of sequences."""
    prefixes = np.arange(1, len(ids) + 1, dtype=object)
    return max(
        Fraction(int(abs(np.cumsum(ids == number) * share.denominator - prefixes * share.numerator).max()))
        / share.denominator
        for number, share in enumerate(shares)
    )


def whole(sequences: int, shares: list[Fraction]) -> np.ndarray:
    return np.concatenate(list(schedule.order(sequences, shares)))


def test_the_recipe_is_exact_at_every_thousandth_of_two_hundred_thousand_sequences_and_between():
    ids = whole(200_000, RECIPE)
    for prefix in range(1000, 200_001, 1000):
        counts = np.bincount(ids[:prefix], minlength=5)
        assert counts.tolist() == [prefix * share for share in RECIPE]
    assert worst(ids, RECIPE) == Fraction(9, 10)


@given(parts=st.lists(st.integers(1, 10**12), min_size=1, max_size=12), sequences=st.integers(1, 700))
@at_most(150)
def test_any_shares_are_less_than_one_sequence_off_after_any_prefix(parts: list[int], sequences: int):
    shares = [Fraction(part, sum(parts)) for part in parts]
    ids = whole(sequences, shares)
    assert len(ids) == sequences
    assert worst(ids, shares) < 1


@given(
    parts=st.lists(st.integers(0, 30), min_size=1, max_size=6), sequences=st.integers(1, 400), more=st.integers(0, 400)
)
@at_most(100)
def test_the_order_of_fewer_sequences_begins_that_of_more(parts: list[int], sequences: int, more: int):
    parts[0] += 1
    shares = [Fraction(part, sum(parts)) for part in parts]
    ids = whole(sequences + more, shares)
    assert np.array_equal(ids[:sequences], whole(sequences, shares))
    # A dataset without a share never comes.
    assert not set(ids.tolist()) & {number for number, part in enumerate(parts) if not part}


def test_shares_that_come_back_soon_give_what_the_others_give():
    shares = [Fraction(part, 17) for part in (3, 5, 9)]
    once = list(schedule._earliest_deadlines(1000, shares, 17))
    assert np.array_equal(whole(1000, shares), np.concatenate(once))


def test_many_datasets_with_tiny_shares():
    shares = [Fraction(1, 1000)] * 999 + [Fraction(1, 1000)]
    assert sorted(whole(1000, shares).tolist()) == list(range(1000))


@pytest.mark.parametrize("shares", [[Fraction(1, 2)], [Fraction(3, 2), Fraction(-1, 2)]])
def test_shares_that_are_no_parts_of_a_whole(shares: list[Fraction]):
    with pytest.raises(ValueError, match="no parts of a whole"):
        next(schedule.order(3, shares))


def test_each_phase_is_exact_in_itself():
    first, second = [Fraction(7, 10), Fraction(3, 10), Fraction(0)], [Fraction(0), Fraction(1, 3), Fraction(2, 3)]
    ends = schedule.phase_ends(1001, [Fraction(4, 5), Fraction(1)])
    assert ends == [801, 1001]
    ids = np.concatenate(list(schedule.phased_order(ends, [first, second])))
    assert worst(ids[:801], first) < 1
    assert worst(ids[801:], second) < 1
    assert (np.bincount(ids) <= schedule.most(ends, [first, second])).all()


@given(
    parts=st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=3),
    sequences=st.integers(10, 200),
    available=st.integers(0, 60),
)
@at_most(150)
def test_a_dataset_lasts_as_long_as_is_said(parts: list[list[int]], sequences: int, available: int):
    shares = [[Fraction(part + 1, sum(row) + 3) for part in row] for row in parts]
    ends = schedule.phase_ends(sequences, [Fraction(number + 1, len(parts)) for number in range(len(parts))])
    ids = np.concatenate(list(schedule.phased_order(ends, shares)))
    last = schedule.last_sequence(ends, shares, 1, available)
    assert (ids[:last] == 1).sum() <= available
    # It is no more careful than by the sequence that each phase rounds up.
    if last < sequences:
        assert (ids[: last + 1] == 1).sum() >= available - len(parts)


def test_places_count_each_dataset_over_all_pieces():
    pieces = [np.array(piece, np.int16) for piece in ([0, 1, 0], [1, 1, 2], [0])]
    found = [within.tolist() for _, within in schedule.places(iter(pieces), 3)]
    assert list(itertools.chain(*found)) == [0, 0, 1, 1, 2, 0, 2]
