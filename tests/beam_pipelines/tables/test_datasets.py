"""The tables of datasets, of which some have names and numbers that no build gives."""

from __future__ import annotations

import io

from rich.console import Console

from beam_pipelines.console.layout import NO_LIMIT
from beam_pipelines.tables.status import print_status
from transforms.building.status import DatasetProgress


def test_the_status_of_a_dataset_that_wants_nothing() -> None:
    shown = io.StringIO()
    progress = DatasetProgress("a[/]\x1b[2J", state="finished", wanted=0, tokens=0, shards=0)
    print_status(Console(file=shown, width=NO_LIMIT), [progress], "table")
    (row,) = [line.split() for line in shown.getvalue().splitlines() if "finished" in line]
    assert row == ["a[/]\\u001b[2J", "finished", "0", "0", "0"]
