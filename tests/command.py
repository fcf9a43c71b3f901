"""Runs `broetchen` as its users do: the installed command, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

COMMAND = Path(sys.executable).with_name("broetchen")
_TIMEOUT_S = 120


def run_command(
    *arguments: str | Path, cwd: Path | None = None, module: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the command, or `python -m module`, to its end. What it prints is captured and it sees no terminal."""
    return subprocess.run(
        _command_line(arguments, module),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )


@contextlib.contextmanager
def started_command(*arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Starts the command in a session of its own, and at the end kills whatever of it still runs."""
    with subprocess.Popen(
        _command_line(arguments, None),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            kill_session(process)


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kills a started command and all processes that it has started, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _command_line(arguments: tuple[str | Path, ...], module: str | None) -> list[str]:
    start = [sys.executable, "-m", module] if module else [str(COMMAND)]
    return [*start, *map(str, arguments)]
