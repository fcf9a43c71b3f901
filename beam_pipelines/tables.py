"""The tables that the commands print."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from beam_pipelines.build_mix import BuildSummary
from beam_pipelines.dataflow_cost import PRICES_OF, dataflow_cost
from beam_pipelines.download_sources import Download
from beam_pipelines.plan_mix import DatasetOutlook
from transforms.build_status import DatasetProgress
from transforms.manifest import Manifest
from transforms.quantities import format_size
from transforms.text_count import TextCount

OutputFormat = Literal["table", "json", "csv"]

_NO_LIMIT = 10_000


def _table(title: str, columns: Sequence[str], texts: int = 1) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < texts else "right", no_wrap=True)
    return table


def _print_table(console: Console, table: Table, spare: Sequence[str]) -> None:
    """Prints a table; where the terminal is too narrow for it, without the first few columns of `spare`."""
    terminal, left_out = console.width, []
    for name in spare:
        if _width(console, table) <= terminal:
            break
        table = _without(table, name)
        left_out.append(name)
    # Lines that are still too long are broken by the terminal: no digit of a number is ever cut off.
    console.width = max(terminal, _width(console, table))
    console.print(table)
    console.width = terminal
    if left_out:
        console.print(f"[dim]{', '.join(left_out)}: on a wider terminal[/]")


def print_cells(
    console: Console, columns: Sequence[str], rows: Iterable[Sequence[str]], *, spare: Sequence[str] = ()
) -> None:
    """Prints a table whose first column is text; on a narrow terminal without the first few columns of `spare`."""
    table = _table("", columns)
    for row in rows:
        table.add_row(*map(escape, row))
    _print_table(console, table, spare)


def _without(table: Table, name: str) -> Table:
    kept = [column for column in table.columns if column.header != name]
    smaller = _table("", ())
    for column in kept:
        smaller.add_column(column.header, justify=column.justify, no_wrap=column.no_wrap)
    for row, cells in zip(table.rows, zip(*(column.cells for column in kept), strict=True), strict=True):
        smaller.add_row(*cells, style=row.style, end_section=row.end_section)
    return smaller


def _width(console: Console, table: Table) -> int:
    return console.measure(table, options=console.options.update(max_width=_NO_LIMIT)).maximum


def print_build(console: Console, summary: BuildSummary, output: str) -> None:
    """Wanted and written tokens of each split, and where it all is."""
    columns = ("dataset", "split", "wanted", "written", "share", "documents", "records", "shards", "size")
    table = _table("", columns, texts=2)
    manifests = summary.manifests
    train = sum(manifest.splits["train"].tokens for manifest in manifests.values())
    tokens = size = 0
    for manifest in manifests.values():
        for name, split in manifest.splits.items():
            tokens, size = tokens + split.tokens, size + split.bytes
            missing = f" ({split.missing:,} missing)" if split.missing else ""
            share = f"{100 * split.tokens / train:.2f} %" if name == "train" and train else ""
            numbers = (split.documents, split.records, len(split.shards))
            table.add_row(
                manifest.dataset,
                name,
                f"{split.budget:,}",
                f"{split.tokens:,}{missing}",
                share,
                *(f"{number:,}" for number in numbers),
                format_size(split.bytes),
            )
    wanted = sum(split.budget for manifest in manifests.values() for split in manifest.splits.values())
    table.add_section()
    table.add_row("all", "", f"{wanted:,}", f"{tokens:,}", "", "", "", "", format_size(size), style="bold")
    _print_table(console, table, ("documents", "records", "share", "size", "shards"))
    skipped = sum(sum(manifest.skipped.values()) for manifest in manifests.values())
    if skipped:
        where = "; those in quarantine lie in _quarantine" if any(m.quarantine for m in manifests.values()) else ""
        console.print(f"{skipped:,} rows held no text and were left out; each manifest has the reasons{where}.")
    made = [split for folder in summary.built for split in manifests[folder].splits.values()]
    tokens, size = sum(split.tokens for split in made), sum(split.bytes for split in made)
    speed = f"{tokens / summary.seconds / 1e6:.2f} Mtok/s, {size / summary.seconds / 1e6:.1f} MB/s"
    before = len(manifests) - len(summary.built)
    kept = f"; {before} of {len(manifests)} datasets were there already" if before else ""
    console.print(
        f"{tokens:,} tokens in {summary.seconds:.1f} s ({speed}){kept}; all in {output}",
        soft_wrap=True,
        markup=False,
        emoji=False,
    )


def print_verified(console: Console, manifests: Mapping[str, Manifest]) -> None:
    """One line a dataset, all of them sound."""
    table = _table("", ("dataset", "tokens", "records", "shards", ""))
    for manifest in manifests.values():
        splits = manifest.splits.values()
        numbers = (
            sum(split.tokens for split in splits),
            sum(split.records for split in splits),
            sum(len(split.shards) for split in splits),
        )
        table.add_row(manifest.dataset, *(f"{number:,}" for number in numbers), "[green]sound")
    _print_table(console, table, ("records", "shards"))


def print_plan(console: Console, outlooks: Sequence[DatasetOutlook], output_format: OutputFormat) -> None:
    """What a build would read and write."""
    if output_format != "table":
        print_rows(console, [dataclasses.asdict(outlook) for outlook in outlooks], output_format)
        return
    columns = (
        "dataset", "engine", "wanted tokens", "source holds", "files", "row groups", "to read ≈", "shards ≈",
        "to write ≈", "one process ≈",
    )  # fmt: skip
    table = _table("", columns, texts=2)
    for outlook in outlooks:
        short = outlook.available < outlook.need
        table.add_row(
            outlook.dataset,
            outlook.engine,
            f"{outlook.need:,}",
            f"{'[red]' if short else ''}{'' if outlook.available_exact else '≈ '}{outlook.available:,}",
            f"{outlook.files_read} of {outlook.files}",
            f"{outlook.row_groups:,}",
            format_size(outlook.read_bytes),
            f"{outlook.shards:,}",
            format_size(outlook.written_bytes),
            _duration(outlook.seconds),
        )
    _print_table(console, table, ("engine", "row groups", "shards ≈", "to write ≈", "files", "one process ≈"))
    scratch = max(outlook.scratch_bytes for outlook in outlooks)
    console.print(f"With the output in a bucket, each process takes up to {format_size(scratch)} of local disk.")
    cost = dataflow_cost(sum(outlook.seconds for outlook in outlooks))
    if cost.processor_hours >= 0.1:
        console.print(
            f"On Dataflow: about {cost.processor_hours:,.1f} processor hours, ${cost.dollars:,.2f} at the list prices "
            f"of {PRICES_OF} in us-central1, without the start-up of workers; see docs/dataflow.md."
        )
    for outlook in outlooks:
        if outlook.available < outlook.need:
            sure = "" if outlook.available_exact else "probably "
            console.print(
                f"[red]{outlook.dataset} will {sure}lack {outlook.need - outlook.available:,} tokens;[/] "
                "add source files or lower its budget"
            )


def print_progress(console: Console, found: Sequence[DatasetProgress], output_format: OutputFormat) -> None:
    """How far the datasets of an output are."""
    if output_format != "table":
        print_rows(console, [dataclasses.asdict(progress) for progress in found], output_format)
        return
    table = _table("", ("dataset", "state", "tokens", "wanted", "done", "shards"), texts=2)
    for progress in found:
        done = f"{progress.tokens / progress.wanted:.1%}"
        table.add_row(
            escape(progress.dataset),
            progress.state,
            f"{progress.tokens:,}",
            f"{progress.wanted:,}",
            done,
            f"{progress.shards:,}",
        )
    _print_table(console, table, ("shards", "wanted"))


def print_downloads(console: Console, found: Sequence[Download]) -> None:
    """The files that a download would fetch."""
    table = _table("", ("source", "to", "size"), texts=2)
    for file in found:
        table.add_row(escape(file.source), escape(file.target), format_size(file.size))
    table.add_section()
    table.add_row(f"{len(found):,} files", "", format_size(sum(file.size for file in found)))
    _print_table(console, table, ("to",))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


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
    table = _table("", columns)
    for index, row in enumerate(rows):
        values = (
            f"{value:,}" if isinstance(value, int) else "–" if value is None else f"{value:,.2f}"
            for value in list(row.values())[1:]
        )
        table.add_row(escape(str(row["dataset"])), *values, style="bold" if index == len(counts) else None)
    _print_table(console, table, ("rows left out", "p99", "median", "bytes", "documents", "bytes/token"))


def counts_text(counts: Mapping[str, TextCount], output_format: OutputFormat) -> str:
    """What `print_counts` prints where no terminal limits the width."""
    buffer = io.StringIO()
    print_counts(Console(file=buffer, width=_NO_LIMIT), counts, output_format)
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


def print_rows(console: Console, rows: Iterable[Mapping[str, object]], output_format: OutputFormat) -> None:
    """Prints rows, which all have the same keys, as JSON or CSV."""
    rows = list(rows)
    if output_format == "json":
        text = json.dumps(rows, indent=1)
    else:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = buffer.getvalue().rstrip("\n")
    console.print(text, soft_wrap=True, markup=False, emoji=False, highlight=False)
