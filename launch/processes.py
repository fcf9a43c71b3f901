"""Runs other people's programs (gcloud, xpk, uv, MaxText): a list of arguments, no shell, no input."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.job import Command
from transforms.errors import UsageError
from transforms.files.own_file import open_own

_LOGGER = logging.getLogger(__name__)

_KEPT_LINES = 200

# The advice for each program that may be missing.
_INSTALL = {
    "gcloud": "install the Google Cloud CLI: https://cloud.google.com/sdk/docs/install",
    "kubectl": "install it with: gcloud components install kubectl",
    "xpk": "install it in an environment of its own with: uv tool install xpk==1.16.0",
}


@dataclass(frozen=True)
class Outcome:
    """The exit of a program, and its output."""

    code: int
    output: str
    errors: str


def run(command: Command) -> Outcome:
    """Runs a program to its end and keeps its output.

    Raises:
        UsageError: it is not installed.
    """
    try:
        done = subprocess.run(
            command.arguments,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **command.environment},
        )
    except FileNotFoundError as error:
        raise _missing(command) from error
    return Outcome(done.returncode, done.stdout, done.stderr)


def show(command: Command, *, merged: bool = False) -> Outcome:
    """Runs a program to its end and shows its output as it comes; the end of its errors is kept.

    Args:
        command: the program.
        merged: whether it reports on its standard output too. The `errors` of the outcome then has both.

    Raises:
        UsageError: it is not installed.
    """
    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        with subprocess.Popen(
            command.arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if merged else None,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **command.environment},
        ) as process:
            for line in process.stdout or process.stderr or ():
                kept.append(line)
                if merged:
                    print(line, end="", flush=True)
                else:
                    _LOGGER.info("%s", line.rstrip())
            code = process.wait()
    except FileNotFoundError as error:
        raise _missing(command) from error
    return Outcome(code, "", "".join(kept))


def run_logged(
    arguments: Sequence[str | Path],
    log: Path,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Runs a program to its end, with all that it prints at the end of a file; answers with its exit status.

    Args:
        arguments: the program, and its arguments.
        log: the file, which need not be there.
        folder: its working directory; ours by default.
        environment: all of its environment variables; ours by default.
    """
    with open(open_own(log, flags=os.O_APPEND), "ab") as output:
        return subprocess.run(
            arguments,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode


def signal_name(number: int) -> str:
    """The name of a signal, and for one that a machine without memory sends, a possible reason.

    >>> signal_name(15), signal_name(999)
    ('SIGTERM', 'signal 999')
    """
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name} (perhaps the machine's memory was full)" if number == signal.SIGKILL else name


def last_lines(path: Path, count: int) -> str:
    """The last lines of a text file, without its control characters; "" where it is not there."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 400 * count))
            lines = file.read().decode("utf-8", "replace").splitlines()[-count:]
    except FileNotFoundError:
        return ""
    return "\n".join("".join(c if c.isprintable() or c == "\t" else "?" for c in line) for line in lines)


def _missing(command: Command) -> UsageError:
    program = command.arguments[0]
    return UsageError(f"{program} is not on the PATH; {_INSTALL.get(program, 'install it')}")
