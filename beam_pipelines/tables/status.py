"""The table of a build that is under way; it loads none of the modules that build."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rich.console import Console

from beam_pipelines.console.layout import OutputFormat, cell, new_table, print_rows, print_table
from transforms.building.status import DatasetProgress
from transforms.quantities import format_share


def print_status(console: Console, found: Sequence[DatasetProgress], output_format: OutputFormat) -> None:
    """How far the datasets of an output are."""
    if output_format != "table":
        print_rows(console, [dataclasses.asdict(progress) for progress in found], output_format)
        return
    table = new_table(("dataset", "state", "tokens", "wanted", "done", "shards"), texts=2)
    for progress in found:
        done = format_share(progress.tokens / progress.wanted) if progress.wanted else ""
        table.add_row(
            cell(progress.dataset),
            progress.state,
            f"{progress.tokens:,}",
            f"{progress.wanted:,}",
            done,
            f"{progress.shards:,}",
        )
    print_table(console, table, ("shards", "wanted"))
