"""The notes of `mix` on datasets that are to be read several times."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from beam_pipelines.jobs.mixture import MixtureSummary, Training
from beam_pipelines.tables.mixture import notes, print_mixture
from launch.mixture.datasets import Component, Mixture, Records
from launch.mixture.outlook import outlook

LARGE = Component("large", "/mix/large", 60_000, 600, 1, 60_000)
# A third of the budget, in records of the same mean.
SMALL = Component("small", "/mix/small", 20_000, 200, 1, 60_000, passes=3.0, max_repeats=4)
RECORDS = Records(format="tokens", max_tokens=100, bos_id=None, eos_id=1)


def summary(*components: Component, epochs: int = 1, training: Training | None = None) -> MixtureSummary:
    mixture = Mixture(components, True, {}, RECORDS, "sha", 1000, "/mix/tokenizer/tokenizer.json")
    found = outlook(components, mixture.shares(), epochs)
    return MixtureSummary(mixture, True, found, training, None)


def table(found: MixtureSummary) -> str:
    buffer = io.StringIO()
    print_mixture(Console(file=buffer, width=300), found, "csv")
    return buffer.getvalue()


def test_it_says_what_the_passes_of_all_budgets_take() -> None:
    found = summary(LARGE, SMALL, training=Training(None, 4, 100))
    assert {one.name: float(one.wanted) for one in found.outlook.components} == {"large": 0.5, "small": 0.5}
    said = notes(found)
    assert said[0] == "small holds 20,000 tokens, written once, of 60,000 that are to be read: 3.00 passes"
    assert said[1] == (
        "MaxText repeats no dataset by itself, but all of a mixture, each up to num_epoch times: num_epoch=3 has "
        "enough for the 120,000 tokens of all passes, which are 300 steps, and only the number of steps ends it there"
    )
    assert said[2].startswith("small runs out after ")
    assert len(said) == 3


def test_with_epochs_enough_each_is_read_as_often_as_is_wanted() -> None:
    found = summary(LARGE, SMALL, epochs=3, training=Training(300, 4, 100))
    passes, end = notes(found)
    assert passes == "small holds 20,000 tokens, written once, of 60,000 that are to be read: 3.00 passes"
    assert end.endswith(
        "at about step 300, and the mixture ends with it; by then it has been read 3.00 times, large 1.00 times"
    )
    assert [float(one.epochs_at_end) for one in found.outlook.components] == pytest.approx([1, 3], abs=0.01)


def test_more_steps_read_it_more_often_than_is_allowed() -> None:
    found = summary(LARGE, SMALL, epochs=9, training=Training(600, 4, 100))
    assert notes(found)[1] == "small is read 6.00 times, and its config allows 4 (max_repeats)"


def test_passes_are_a_column_only_where_there_are_some() -> None:
    header, *rows = table(summary(LARGE, SMALL)).splitlines()
    place = header.split(",").index("passes")
    assert [row.split(",")[place] for row in rows] == ["1.0", "3.0"]
    assert "passes" not in table(summary(LARGE, LARGE.__class__("other", "/mix/other", 10, 2, 1, 10)))


def test_what_no_pass_reaches_is_missing() -> None:
    """Its config kept it, as read four times at most."""
    kept = Component("small", "/mix/small", 20_000, 200, 1, 90_000, passes=4.0, missing=10_000, max_repeats=4)
    said = notes(summary(LARGE, kept))
    assert "small has 80,000 of the 90,000 tokens that its config wanted" in "\n".join(said)
