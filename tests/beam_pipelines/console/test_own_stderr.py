"""A passing line on a terminal of the test's own."""

from __future__ import annotations

import os
import pty
import tty

from beam_pipelines.console.own_stderr import OwnStderr


def shown(terminal: int, wanted: bytes) -> bytes:
    """The next bytes on a terminal, as many as are wanted; they may come in parts."""
    found = b""
    while len(found) < len(wanted):
        found += os.read(terminal, len(wanted) - len(found))
    return found


def test_a_passing_line_goes_before_the_next() -> None:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    with os.fdopen(ours, "rb"), OwnStderr(os.fdopen(theirs, "wb"), encoding="utf-8") as stream:
        stream.pass_by("starting …")
        line = "starting …".encode()
        assert shown(ours, line) == line
        stream.write("first\n")
        stream.write("second\n")
        stream.flush()
        lines = b"\r\x1b[Kfirst\nsecond\n"
        assert shown(ours, lines) == lines
        stream.pass_by("more")
        stream.clear()
        stream.clear()
        cleared = b"more\r\x1b[K"
        assert shown(ours, cleared) == cleared


def test_a_file_gets_none() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe:
        with OwnStderr(os.fdopen(writer, "wb"), encoding="utf-8") as stream:
            stream.pass_by("starting …")
            stream.write("first\n")
        assert pipe.read() == b"first\n"
