"""The layout that the tables of all commands share: their looks, their fit to a terminal, and rows as JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from beam_pipelines.console import terminal
from transforms.errors import without_controls

OutputFormat = Literal["table", "json", "csv"]
"""How results are printed."""

NO_LIMIT = 10_000
"""The width of a console, in characters, on which every table fits."""


def cell(text: str) -> str:
    """Text for a cell of a table, of which nothing is taken for markup, and no control acts."""
    return escape(without_controls(text))


def new_table(columns: Sequence[str], *, texts: int = 1) -> Table:
    """A table whose first `texts` columns hold text, which begins at the left; the others hold numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < texts else "right", no_wrap=True)
    return table


def print_table(console: Console, table: Table, spare: Sequence[str]) -> None:
    """Prints a table; where the terminal is too narrow for it, without the first few columns of `spare`."""
    width, left_out = console.width, []
    for name in spare:
        if table_width(console, table) <= width:
            break
        table = _without(table, name)
        left_out.append(name)
    # Lines that are still too long are broken by the terminal: no digit of a number is ever cut off.
    console.width = max(width, table_width(console, table))
    console.print(table)
    console.width = width
    if left_out:
        console.print(f"[dim]{', '.join(left_out)}: on a wider terminal[/]")


def print_cells(
    console: Console, columns: Sequence[str], rows: Iterable[Sequence[str]], *, spare: Sequence[str] = ()
) -> None:
    """Prints a table whose first column is text; on a narrow terminal without the first few columns of `spare`."""
    table = new_table(columns)
    for row in rows:
        table.add_row(*map(cell, row))
    print_table(console, table, spare)


def _without(table: Table, name: str) -> Table:
    kept = [column for column in table.columns if column.header != name]
    smaller = new_table(())
    for column in kept:
        smaller.add_column(column.header, justify=column.justify, no_wrap=column.no_wrap)
    for row, cells in zip(table.rows, zip(*(column.cells for column in kept), strict=True), strict=True):
        smaller.add_row(*cells, style=row.style, end_section=row.end_section)
    return smaller


def table_width(console: Console, table: Table) -> int:
    """The characters that the lines of a table take where no console limits them."""
    return console.measure(table, options=console.options.update(max_width=NO_LIMIT)).maximum


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
    terminal.print_as_is(console, text)


def print_json(console: Console, value: object) -> None:
    """Prints a value as JSON; values without a type there, such as times, become text, and NaN and infinity null."""
    terminal.print_as_is(console, json.dumps(_finite(value), indent=1, ensure_ascii=False, default=str))


def _finite(value: object) -> object:
    """The same with None for numbers that JSON does not have, such as the loss of a run that has diverged.

    >>> _finite({"losses": (2.5, float("nan"), float("inf"))})
    {'losses': [2.5, None, None]}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def as_text(show: Callable[[Console], None]) -> str:
    """The text that `show` prints on a console whose width no terminal limits."""
    buffer = io.StringIO()
    show(Console(file=buffer, width=NO_LIMIT, emoji=False))
    return "\n".join(line.rstrip() for line in buffer.getvalue().split("\n")).strip("\n") + "\n"
