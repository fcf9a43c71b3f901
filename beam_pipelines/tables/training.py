"""The table of `broetchen train --dry-run`, before its script: the data, time and cost of the run."""

from __future__ import annotations

import io

from rich.console import Console

from beam_pipelines.console.layout import NO_LIMIT, cell, new_table
from launch.checks.budget import UTILIZATION, Budget, DataBudget
from transforms.quantities import format_share, format_size


def budget_comment(name: str, found: Budget) -> str:
    """The table as comments of a shell script, so that all that is printed can be pasted into a shell.

    Args:
        name: of the run.
        found: its figures.
    """
    text = io.StringIO()
    table = new_table([cell(name), "", "how it is known"])
    table.columns[-1].justify = "left"
    for row in _rows(found):
        table.add_row(*map(cell, row))
    Console(file=text, width=NO_LIMIT).print(table)
    return "".join(f"#{line and ' '}{line}\n" for line in map(str.rstrip, text.getvalue().splitlines()) if line)


def _rows(budget: Budget) -> list[tuple[str, str, str]]:
    data = budget.data
    rows = [
        ("steps", f"{budget.steps:,}", _lasting(data)),
        ("tokens", f"{data.tokens:,}", f"{data.tokens // budget.steps:,} a step{_unless(data)}"),
        ("readers", f"{data.readers.count:,}", data.readers.in_words().partition(" (")[2].rstrip(")")),
    ]
    for dataset in data.datasets:
        has = (
            f"documents lie one behind the other ({dataset.records:,})"
            if dataset.a_reader is None
            else f"of {dataset.records:,} records each reader has {dataset.a_reader:,} or more"
        )
        rows.append((f"  {dataset.name}", f"{dataset.passes:.2f} passes", f"{dataset.tokens:,} tokens are read; {has}"))
    if data.host_reads is None:
        rows.append(("memory", "0 bytes", "for indexes: the order's files are mapped, and read as they are needed"))
    else:
        held = f"for indexes of ArrayRecord on each host, in {data.index_processes:,} processes"
        rows.append(("memory", format_size(data.index_bytes), held))
        most = f"{data.host_reads:,.0f}"
        can = f"a step takes {data.step_records:,}; with a core for each worker it reads {most} at most"
        needed = "unknown" if budget.needed_reads is None else f"{budget.needed_reads:,.0f}"
        rows.append(("records a second", needed, f"that each host needs: {can}"))
    if budget.parameters is None:
        rows.append(("parameters", "unknown", "only MaxText can count them for this model"))
    else:
        rows.append(("parameters", f"{budget.parameters:,}", "from MaxText's settings"))
    rows += _time(budget)
    return rows


def _lasting(data: DataBudget) -> str:
    if data.data_steps is None:
        return "the order is for just these"
    return f"the data has {data.data_steps:,} or a few more"


def _unless(data: DataBudget) -> str:
    return ", and each sequence is full" if data.data_steps is None else ", where packing leaves no room unused"


def _time(found: Budget) -> list[tuple[str, str, str]]:
    if found.tokens_a_second is None or found.hours is None:
        return [("tokens a second", "unknown", "the first steps show it"), ("hours", "unknown", "")]
    assumed = f"assumed: {format_share(float(UTILIZATION))} of the chips' best; small models mostly reach less"
    rows = [
        ("tokens a second", f"{found.tokens_a_second:,.0f}", assumed),
        ("hours", f"{found.hours:,.1f}", "of training alone; twice as many at half the tokens a second"),
    ]
    if found.price is None or found.total_price is None:
        rows.append(("price", "unknown", "https://cloud.google.com/tpu/pricing"))
    else:
        most = "at most " if found.price.at_most else ""
        rows.append(("price", f"{most}${found.total_price:,.2f}", f"for those hours: {found.price.in_words()}"))
    return rows
