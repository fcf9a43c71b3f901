"""A passing line on a terminal of the test's own."""

from __future__ import annotations

import os
import pty
import tty

from beam_pipelines.console.own_stderr import OwnStderr


def shown(terminal: int) -> bytes:
    """All that stands in a terminal's line so far."""
    return os.read(terminal, 1000)


def test_a_passing_line_goes_before_the_next() -> None:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    with os.fdopen(ours, "rb"), OwnStderr(os.fdopen(theirs, "wb"), encoding="utf-8") as stream:
        stream.pass_by("starting …")
        assert shown(ours) == "starting …".encode()
        stream.write("first\n")
        stream.write("second\n")
        stream.flush()
        assert shown(ours) == b"\r\x1b[Kfirst\nsecond\n"
        stream.pass_by("more")
        stream.clear()
        stream.clear()
        assert shown(ours) == b"more\r\x1b[K"


def test_a_file_gets_none() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe:
        with OwnStderr(os.fdopen(writer, "wb"), encoding="utf-8") as stream:
            stream.pass_by("starting …")
            stream.write("first\n")
        assert pipe.read() == b"first\n"
