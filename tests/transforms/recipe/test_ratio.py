"""How far an estimate may be off: by a sample of a source, and by counts of it."""

from __future__ import annotations

import random

import pytest

from transforms.recipe.ratio import Ratio, expect, sampled_ratio

PARTS = [(100, 0.25)] * 32


def test_what_was_encoded_whole_is_known() -> None:
    ratio = sampled_ratio(0.25, [(100, 0.2), (100, 0.3)], [0.2, 0.3], encoded=1.0, decoded=1.0)
    assert ratio.tokens(200) == (50, 0)


def test_a_sample_is_never_sure_to_a_hundredth() -> None:
    ratio = sampled_ratio(0.25, PARTS, [0.25] * 10_000, encoded=0.5, decoded=1.0)
    assert ratio.tokens(1_000_000)[0] == 250_000
    assert 0.01 < ratio.error < 0.02


@pytest.mark.parametrize("parts", [1, 2, 32, 1000])
def test_few_parts_say_less_than_many(parts: int) -> None:
    few, many = (
        sampled_ratio(0.25, [(100, 0.25)] * number, [0.25] * 4 * number, encoded=0.01, decoded=0.1).error
        for number in (parts, 4 * parts)
    )
    assert many < few


def test_the_error_grows_with_how_much_parts_differ_and_with_what_was_not_decoded() -> None:
    def error(spread: float, decoded: float) -> float:
        parts = [(100, 0.25 * (1 + spread * (-1) ** number)) for number in range(32)]
        return sampled_ratio(0.25, parts, [0.25] * 128, encoded=0.01, decoded=decoded).error

    assert error(0.0, 0.1) < error(0.2, 0.1) < error(0.4, 0.1)
    assert error(0.4, 1.0) < error(0.4, 0.5) < error(0.4, 0.1)
    # Three standard errors of parts that are off by 40 %, and a little for the pieces.
    assert error(0.4, 0.0) == pytest.approx(3 * 0.4 / 32**0.5, rel=0.2)


def test_an_interval_holds_the_truth_of_sources_whose_parts_differ() -> None:
    """500 parts differ by 20 %, and 32 of them are looked at."""
    draw = random.Random(7)
    held = 0
    for _ in range(200):
        source = [max(0.01, draw.gauss(0.25, 0.05)) for _ in range(500)]
        seen = source[7::16][:32]
        mean = sum(seen) / len(seen)
        ratio = sampled_ratio(mean, [(100, one) for one in seen], seen * 4, encoded=0.01, decoded=0.064)
        held += abs(sum(source) * 100 - ratio.tokens(50_000)[0]) <= ratio.tokens(50_000)[1]
    assert held >= 198


def test_what_follows_is_expected_as_what_was_counted() -> None:
    expected, error = expect([100] * 10, [30] * 5, Ratio(0.25, 0.1, 0.05, ((1000, 0.25),)), 150)
    assert expected == pytest.approx([30] * 5)
    assert 0.02 < error < 0.5


def test_counted_shards_that_differ_are_less_sure() -> None:
    sampled = Ratio(0.25, 0.1, 0.05, ((1000, 0.25),))
    alike, unlike = ([30] * 20, [20, 40] * 10)
    assert expect([100] * 40, alike, sampled, 500)[1] < expect([100] * 40, unlike, sampled, 500)[1]


def test_nothing_counted_is_expected_as_it_was_sampled() -> None:
    expected, error = expect([100] * 4, [], Ratio(0.25, 0.1, 0.0, ((400, 0.25),)), 50)
    assert expected == pytest.approx([25] * 4)
    assert error == pytest.approx(0.1)


def test_a_part_of_another_kind_is_expected_where_the_sample_has_seen_it() -> None:
    """The first half makes 0.2 tokens of a byte, the second 0.8; twice as many are counted in the first."""
    sampled = Ratio(0.5, 0.1, 0.1, tuple([(100, 0.2)] * 16 + [(100, 0.8)] * 16))
    expected, _ = expect([100] * 32, [], sampled, 1000)
    assert expected[:15] == pytest.approx([20] * 15, rel=0.05)
    assert expected[17:] == pytest.approx([80] * 15, rel=0.05)
    expected, _ = expect([100] * 32, [40] * 12, sampled, 1000)
    assert expected[:3] == pytest.approx([40] * 3, rel=0.05)
    assert expected[5:] == pytest.approx([160] * 15, rel=0.05)


def test_what_chance_makes_of_neighbours_is_not_taken_for_a_kind() -> None:
    draw = random.Random(3)
    sampled = Ratio(0.25, 0.1, 0.1, tuple((100, draw.gauss(0.25, 0.025)) for _ in range(32)))
    expected, _ = expect([100] * 32, [25] * 16, sampled, 200)
    assert sum(expected) == pytest.approx(16 * 25, rel=0.1)
