"""The screen of a terminal as a picture: the control sequences of Rich's displays are followed; lines become SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

_TOKEN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+|\x1b")
_SEQUENCE = re.compile(r"\x1b\[(?P<arguments>[0-9;?]*)(?P<kind>[A-Za-z])")
_STYLES = re.compile(r"\x1b\[[0-9;]*m")

# Rich's own format asks a server for its font; this one takes a font of the reader's.
_FORMAT = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; font-weight: bold; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def states(shown: str) -> Iterator[list[str]]:
    """The lines of the screen, with their styles, before each display is drawn over, and at the end.

    Lines are followed, not cells: Rich draws a line again as a whole.

    Args:
        shown: the text written to the terminal.
    """
    lines, row, returned, drawn = [""], 0, False, True
    for token in _TOKEN.findall(shown):
        if token == "\r":
            returned = True
            continue
        if token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
            returned = False
            continue
        sequence = _SEQUENCE.fullmatch(token)
        match sequence["kind"] if sequence else "":
            case "A" | "K":
                if drawn:
                    yield list(lines)
                drawn = False
                if token.endswith("A"):
                    row = max(0, row - int(token[2:-1] or 1))
                else:
                    lines[row] = ""
            case "m" | "":
                if returned:
                    lines[row] = ""
                lines[row] += token
                drawn = True
        returned = False
    yield lines


def plain(lines: Sequence[str]) -> str:
    """The lines without their styles."""
    return "\n".join(_STYLES.sub("", line) for line in lines)


def picture(name: str, title: str, lines: Sequence[str], columns: int) -> str:
    """An SVG of a terminal that shows these lines; `name` makes its ids differ from those of others on a page."""
    console = Console(
        record=True,
        width=columns,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    for line in lines:
        console.print(Text.from_ansi(line.rstrip()), no_wrap=False, overflow="fold", highlight=False)
    return console.export_svg(title=title, code_format=_FORMAT, unique_id=name)
