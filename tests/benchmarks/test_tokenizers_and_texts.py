"""The table of tokenizers and texts: what is divided by what, and which targets there are."""

from __future__ import annotations

import pytest

from benchmarks.harness.corpus import Texts
from benchmarks.harness.measure import Measurement
from benchmarks.harness.report import Row, Run, summarize
from benchmarks.tokenizers_and_texts import HEADINGS, Pair, cells, own_ratios, targets


def row(contender: str, corpus_mb: int, tokens: int, seconds: float, start_seconds: float) -> Row:
    def run(size: int, ids: int, wall: float) -> Run:
        measurement = Measurement(0, wall, 2 * wall, 1, 1, 1, 1, 1, 0.0)
        return Run(contender, size, ids, size * 10**6, 1, 0, measurement)

    (summary,) = summarize([run(corpus_mb, tokens, seconds)], [run(1, 0, start_seconds)])
    return summary


def pair(tokenizer: str, texts: Texts, seconds: float, datatrove_seconds: float = 22.0) -> Pair:
    ours = row("build", 400, 100_000_000, seconds, 5.0)
    return Pair(tokenizer, texts, ours, row("datatrove", 100, 20_000_000, datatrove_seconds, 2.0), 0.001)


def test_start_up_of_datatrove_is_left_out_and_ours_is_told_both_ways() -> None:
    plain, neox = pair("sample", "clean", 10.0), pair("neox", "web", 15.0)
    assert plain.ratio == pytest.approx(10.0)
    assert plain.steady_ratio == pytest.approx(20.0)
    assert neox.ratio == pytest.approx(100 / 15)
    assert own_ratios(neox, [plain, neox]) == pytest.approx((10 / 15, 5 / 10))
    shown = cells(neox, [plain, neox])
    assert len(shown) == len(HEADINGS)
    assert shown == ["build", "neox", "web", "6.67", "26.7", "30.0", "1.00", "6.67", "10.00", "0.67", "0.50", "0.100%"]


def test_targets_are_of_the_recipes_tokenizers_on_the_web() -> None:
    pairs = [pair("sample", "clean", 10.0), pair("sample", "web", 12.0), pair("nanochat", "web", 10.0)]
    found = targets([*pairs, pair("neox", "web", 15.0), pair("neox", "clean", 10.0)])
    assert [(target.what.partition(" ÷")[0], target.met) for target in found] == [
        ("build, nanochat, web", True),
        ("build, nanochat, web", True),
        ("build, neox, web", False),
        ("build, neox, web", False),
    ]
    assert [target.limit for target in found] == [10.0, 0.6] * 2


def test_a_run_that_is_too_short_tells_nothing() -> None:
    short = pair("neox", "web", 9.0, datatrove_seconds=3.0)
    assert (short.ratio, short.steady_ratio) == (None, None)
    assert targets([short]) == []
    assert cells(short, [short])[6:11] == ["–"] * 5
