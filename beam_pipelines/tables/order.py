"""The table of `broetchen mix --blend`: a row for each dataset of an exact order."""

from __future__ import annotations

from rich.console import Console

from beam_pipelines.console.layout import OutputFormat, print_cells, print_rows
from beam_pipelines.jobs.order import OrderSummary
from transforms.quantities import format_share


def print_order(console: Console, summary: OrderSummary, output_format: OutputFormat) -> None:
    """Each dataset with its share, and how much of it is read."""
    if output_format != "table":
        rows = [
            {
                "dataset": supply.name,
                "tokens": supply.tokens,
                "share": float(share),
                "sequences": supply.taken,
                "available_sequences": supply.available,
                "passes": float(supply.passes(summary.length)),
            }
            for share, supply in zip(summary.shares, summary.supplies, strict=True)
        ]
        print_rows(console, rows, output_format)
        return
    cells = [
        (
            supply.name,
            f"{supply.tokens:,}",
            format_share(float(share)),
            f"{supply.taken:,}",
            f"{supply.available:,}",
            f"{float(supply.passes(summary.length)):.2f}",
        )
        for share, supply in zip(summary.shares, summary.supplies, strict=True)
    ]
    print_cells(console, ("dataset", "tokens", "share", "sequences ≤", "available", "passes"), cells)
