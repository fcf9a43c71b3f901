"""Commands print plain text: nothing in it acts on a terminal, and nothing is taken for markup."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from beam_pipelines.console import terminal
from beam_pipelines.console.layout import NO_LIMIT, print_cells, print_rows

NASTY = "[red]a[/red]\x1b[2J\x9b31m\u202eb\x00\r:smile:"
SHOWN = "[red]a[/red]\\u001b[2J\\u009b31m\\u202eb\\u0000\\u000d:smile:"


def console() -> Console:
    return Console(file=io.StringIO(), width=NO_LIMIT, emoji=False)


def printed(on: Console) -> str:
    assert isinstance(on.file, io.StringIO)
    return on.file.getvalue()


def test_a_line_is_printed_as_it_is() -> None:
    shown = console()
    terminal.print_as_is(shown, f"{NASTY}\nsoft\u00adhyphen")
    assert printed(shown) == f"{SHOWN}\nsoft\u00adhyphen\n"


def test_a_cell_is_printed_as_it_is() -> None:
    shown = console()
    print_cells(shown, ("dataset", "tokens"), [(NASTY, "5")])
    assert SHOWN in printed(shown)


@pytest.mark.parametrize("output_format", ["json", "csv"])
def test_rows_have_no_controls(output_format: str) -> None:
    shown = console()
    print_rows(shown, [{"dataset": NASTY}], output_format)  # type: ignore[arg-type]
    assert all(character.isprintable() or character == "\n" for character in printed(shown))
