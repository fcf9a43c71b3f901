"""Standard error, taken away from everything but a command's own words; a passing line can stand on it."""

from __future__ import annotations

import contextlib
import io
import os

# The cursor back to the start of its line, and the line cleared (ECMA-48).
_CLEARED = "\r\x1b[K"


class OwnStderr(io.TextIOWrapper):
    """A stream on a descriptor of its own; on a terminal, a line may stand there until something else is said."""

    _passing = False

    def pass_by(self, line: str) -> None:
        """Shows a line until the next is written, if this is a terminal."""
        if self.isatty():
            self.write(line)
            self.flush()
            self._passing = True

    def clear(self) -> None:
        """Takes the passing line away, if one stands there."""
        if self._passing:
            self._passing = False
            super().write(_CLEARED)
            self.flush()

    def write(self, text: str) -> int:
        """Writes over the passing line."""
        self.clear()
        return super().write(text)


def take_stderr() -> OwnStderr | None:
    """Sends what others write to standard error nowhere.

    Returns:
        the stream that leads where it led; None where there is none.
    """
    with contextlib.suppress(OSError):
        own = OwnStderr(os.fdopen(os.dup(2), "wb"), encoding="utf-8", errors="backslashreplace", line_buffering=True)
        drop_stderr()
        return own
    return None


def drop_stderr() -> None:
    """Sends all that is written to standard error from now on nowhere.

    Raises:
        OSError: there is no null device.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
