"""The table of files to download."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from beam_pipelines.download_sources import Download
from beam_pipelines.tables import new_table, print_table
from transforms.quantities import format_size


def print_downloads(console: Console, found: Sequence[Download]) -> None:
    """The files that a download would fetch."""
    table = new_table(("source", "to", "size"), texts=2)
    for file in found:
        table.add_row(escape(file.source), escape(file.target), format_size(file.size))
    table.add_section()
    table.add_row(f"{len(found):,} files", "", format_size(sum(file.size for file in found)))
    print_table(console, table, ("to",))
