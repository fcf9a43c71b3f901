"""The table of counted subtokens."""

from __future__ import annotations

import io
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape

from beam_pipelines.tables import NO_LIMIT, OutputFormat, new_table, print_rows, print_table
from transforms.text_count import TextCount


def print_counts(console: Console, counts: Mapping[str, TextCount], output_format: OutputFormat) -> None:
    """Subtokens of each dataset and of all; what cannot be known is a dash, null, or nothing in CSV."""
    total = TextCount.sum(counts.values())
    rows = [_count_row(name, count) for name, count in [*counts.items(), ("all", total)]]
    if output_format != "table":
        print_rows(console, rows, output_format)
        return
    columns = (
        "dataset", "subtokens", "documents", "bytes", "bytes/token", "tokens/document", "median", "p99",
        "rows left out",
    )  # fmt: skip
    table = new_table(columns)
    for index, row in enumerate(rows):
        values = (
            f"{value:,}" if isinstance(value, int) else "–" if value is None else f"{value:,.2f}"
            for value in list(row.values())[1:]
        )
        table.add_row(escape(str(row["dataset"])), *values, style="bold" if index == len(counts) else None)
    print_table(console, table, ("rows left out", "p99", "median", "bytes", "documents", "bytes/token"))


def counts_text(counts: Mapping[str, TextCount], output_format: OutputFormat) -> str:
    """What `print_counts` prints where no terminal limits the width."""
    buffer = io.StringIO()
    print_counts(Console(file=buffer, width=NO_LIMIT), counts, output_format)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()).strip("\n") + "\n"


def _count_row(name: str, count: TextCount) -> dict[str, str | int | float | None]:
    return {
        "dataset": name,
        "subtokens": count.tokens,
        "documents": count.documents,
        "bytes": count.text_bytes,
        "bytes_per_token": count.bytes_per_token,
        "tokens_per_document": count.mean,
        "median_tokens_per_document": count.median,
        "p99_tokens_per_document": count.p99,
        "rows_left_out": count.skipped,
    }
