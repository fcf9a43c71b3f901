"""The pictures of the documents: what a terminal shows is followed rightly, and those that are there are sound."""

from __future__ import annotations

import io
import re
import shlex
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console
from rich.progress import Progress

from tests.documents import screen
from tests.documents.pictures import FOLDER, PAGES, TERMINALS
from tests.support.documents import DOCUMENTS, links
from tests.system.test_docs import parse

SVG = "{http://www.w3.org/2000/svg}"
TERMINAL_PICTURES = [FOLDER / f"{name}.svg" for name in TERMINALS]


def lines_of(picture: str) -> list[str]:
    """The texts of a picture, a line each."""
    lines: dict[float, str] = {}
    for text in ET.fromstring(picture).iter(f"{SVG}text"):
        if text.get("clip-path"):
            height = float(text.attrib["y"])
            lines[height] = lines.get(height, "") + (text.text or "")
    texts = (line.replace("\N{NO-BREAK SPACE}", " ").strip() for line in lines.values())
    return [text for text in texts if text]


def test_a_display_is_followed() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=60, legacy_windows=False)
    console.print("before")
    with Progress(console=console, auto_refresh=False) as progress:
        first, second = progress.add_task("first", total=4), progress.add_task("second", total=4)
        for step in range(5):
            progress.update(first, completed=step)
            progress.update(second, completed=step / 2)
            progress.refresh()
            if step == 2:
                console.print("between")
    console.print("[bold]after[/]")
    states = [screen.plain(state) for state in screen.states(shown.getvalue().replace("\n", "\r\n"))]
    half = next(state for state in states if "50%" in state)
    assert re.fullmatch(r"(?s)before\nfirst +\S.* 50% .*\nsecond +\S.* 25% .*", half)
    assert re.fullmatch(
        r"(?s)before\nbetween\nfirst [^\n]* 100% [^\n]*\nsecond [^\n]* 50% [^\n]*\nafter\n?", states[-1]
    )


def test_a_picture_shows_the_lines() -> None:
    lines = ["$ broetchen plan <a> & b", "", "\x1b[1;32mgreen\x1b[0m  plain"]
    picture = screen.picture("test", "a title", lines, columns=40)
    assert lines_of(picture) == ["$ broetchen plan <a> & b", "green  plain"]


@pytest.mark.parametrize("path", TERMINAL_PICTURES, ids=lambda path: path.name)
def test_a_picture_is_sound(path) -> None:
    """It fetches nothing, names no folder of the machine that made it, and its commands exist."""
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"\w+://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search("<script|@import|@font-face|<image|<a |foreignObject", text)
    lines = lines_of(text)
    assert not [line for line in lines if re.search(r"(?<!\w)/(tmp|work|home|root|var)/|Traceback", line)]
    commands = [shlex.split(line.removeprefix("$")) for line in lines if line.startswith("$")]
    assert commands
    for command in commands:
        assert command[0] == "broetchen"
        parse(command[1:])


def test_pictures_are_of_moderate_size() -> None:
    for path in sorted(FOLDER.iterdir()):
        assert path.stat().st_size < 200_000, path.name


def test_the_pictures_are_those_that_are_made_and_shown() -> None:
    made = {path.name for path in TERMINAL_PICTURES} | {f"{name}.png" for name in PAGES}
    assert {path.name for path in FOLDER.iterdir()} == made
    shown = {link.rpartition("/")[2] for document in DOCUMENTS for link in links(document) if "pictures/" in link}
    assert shown == made
