"""The tokens written of a source that is smaller than its budget, and how often they are to be read."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.budget.repeats import beyond, exact, expected_passes, once, passes
from transforms.budget.token_budget import cut_shards

counts = st.integers(0, 2**62)
sizes = st.lists(st.integers(0, 50), max_size=8)


@given(sizes, st.integers(1, 200), st.integers(0, 60), st.booleans())
def test_what_is_held_out_is_exact_and_train_is_all_the_rest_once(
    shards: list[int], train: int, held_out: int, eval_first: bool
) -> None:
    budgets = {"eval": held_out, "train": train} if eval_first else {"train": train, "eval": held_out}
    available = sum(shards)
    found = once(budgets, available)
    assert (found is None) == (available >= train + held_out or available <= held_out)
    if found is None:
        return
    assert list(found) == list(budgets)
    splits = {cut.split: cut for cut in cut_shards(enumerate(shards), found)}
    assert {name: cut.tokens for name, cut in splits.items()} == {"train": available - held_out, "eval": held_out}
    # Together they take each token of the source once: eval where the stream ends, or where it begins.
    taken = [token for cut in splits.values() for token in _tokens(shards, cut.slices)]
    assert sorted(taken) == list(range(available))
    held = _tokens(shards, splits["eval"].slices)
    assert held == list(range(held_out) if eval_first else range(available - held_out, available))


def _tokens(shards: list[int], slices: tuple[object, ...]) -> list[int]:
    starts = [sum(shards[:ordinal]) for ordinal in range(len(shards))]
    return [
        starts[piece.ordinal] + place  # type: ignore[attr-defined]
        for piece in slices
        for place in range(piece.skip, piece.skip + piece.take)  # type: ignore[attr-defined]
    ]


@given(st.integers(1, 2**62), st.integers(1, 2**62), st.integers(10_000, 1_000_000))
def test_a_budget_is_out_of_reach_beyond_the_most_repeats(budget: int, tokens: int, ten_thousandths: int) -> None:
    most = ten_thousandths / 10_000
    assert exact(most) == Fraction(ten_thousandths, 10_000)
    missing = beyond(budget, tokens, most)
    reach = budget - missing
    assert 0 <= missing < budget
    assert reach <= tokens * exact(most)
    # Not one token fewer than can be reached.
    assert not missing or reach + 1 > tokens * exact(most)
    assert passes(budget, missing, tokens) == reach / tokens


@pytest.mark.parametrize(
    ("budgets", "available", "error", "expected", "said"),
    [
        ({"train": 100}, 200, 0, (0.5, 0.5, 0.5), "0.50"),
        ({"train": 100, "eval": 10}, 60, 0, (2, 2, 2), "2.00"),
        ({"eval": 10, "train": 100}, 60, 10, (2, 100 / 60, 2.5), "1.67 to 2.50"),
        ({"train": 100, "eval": 10}, 60, 50, (2, 1, math.inf), "1.00 or more"),
        ({"train": 100, "eval": 10}, 10, 0, (math.inf, math.inf, math.inf), "no number of"),
    ],
)
def test_expected_passes_carry_the_error_of_the_estimate(
    budgets: dict[str, int], available: int, error: int, expected: tuple[float, float, float], said: str
) -> None:
    found = expected_passes(budgets, available, error)
    assert (found.expected, found.least, found.most) == pytest.approx(expected)
    assert str(found) == said
