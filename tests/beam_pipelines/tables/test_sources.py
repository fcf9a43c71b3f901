"""The notes of a plan on sources that hold less than their budgets."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
from rich.console import Console

from beam_pipelines.jobs.plan import DatasetOutlook
from beam_pipelines.tables.sources import print_plan


def outlook(
    available: int, error: int, passes: float | None, most_passes: float | None, max_repeats: float
) -> DatasetOutlook:
    """The outlook of a dataset with a budget of 1,000,000 tokens."""
    others: dict[str, Any] = {field.name: 1 for field in dataclasses.fields(DatasetOutlook)}
    return DatasetOutlook(
        **others
        | {
            "dataset": "a",
            "engine": "gigatoken",
            "reference_share": 0.0,
            "uncut_share": 0.0,
            "need": 1_000_000,
            "available": available,
            "available_error": error,
            "passes": passes,
            "most_passes": most_passes,
            "max_repeats": max_repeats,
        }
    )


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (outlook(1_200_000, 100_000, 1.0, 1.0, 1), None),
        (outlook(1_200_000, 100_000, 1.0, 1.0, 4), None),
        (
            outlook(500_000, 0, 2.0, 2.0, 1),
            "a will lack 500,000 tokens; add source files or lower its budget; or let a training read it 2.00 times "
            "(max_repeats)",
        ),
        (outlook(500_000, 0, 2.0, 2.0, 2), "a will be written once, for a training to read 2.00 times."),
        (
            outlook(500_000, 100_000, 2.0, 2.5, 3),
            "a will be written once, for a training to read 2.00 (at most 2.50) times.",
        ),
        (
            outlook(990_000, 50_000, 1.01, 1.06, 3),
            "a may be written once, for a training to read 1.01 (at most 1.06) times.",
        ),
        (
            outlook(500_000, 100_000, 2.0, 2.5, 2.25),
            "a will lack 500K ± 100K tokens; to read it 2.00 (at most 2.50) times is what it takes, and max_repeats "
            "allows 2.25: add source files or lower its budget",
        ),
        (
            outlook(990_000, 50_000, 1.01, 1.06, 1),
            "a: its budget lies within the margin of error: it may fall short by up to 60.0K tokens; add source files, "
            "lower its budget, or count the source (broetchen count --ledger); or let a training read it 1.01 (at most "
            "1.06) times (max_repeats)",
        ),
        (
            outlook(10_000, 20_000, None, None, 4),
            "a will lack 990K ± 20.0K tokens; add source files or lower its budget",
        ),
        (
            outlook(30_000, 30_000, 50.0, None, 4),
            "a will lack 970K ± 30.0K tokens; to read it 50.00 or more times is what it takes, and max_repeats allows "
            "4: add source files or lower its budget",
        ),
    ],
)
def test_a_plan_says_what_is_missing_and_how_often_it_would_be_read(found: DatasetOutlook, said: str | None) -> None:
    buffer = io.StringIO()
    print_plan(Console(file=buffer, width=1000), [found], "table")
    last = buffer.getvalue().strip().splitlines()[-1].strip()
    assert last == said if said is not None else "--clear-soft-delete" in last
