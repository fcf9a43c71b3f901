"""Runs other people's programs (gcloud, xpk, kubectl): a list of arguments, no shell, no input."""

from __future__ import annotations

import logging
import os
import subprocess
from collections import deque
from dataclasses import dataclass

from launch.job import Command
from transforms.errors import UsageError

_LOGGER = logging.getLogger(__name__)

_KEPT_LINES = 200

# What a missing program asks for.
_INSTALL = {
    "gcloud": "install the Google Cloud CLI: https://cloud.google.com/sdk/docs/install",
    "kubectl": "install it with: gcloud components install kubectl",
    "xpk": "install it in an environment of its own with: uv tool install xpk",
}


@dataclass(frozen=True)
class Outcome:
    """How a program ended, and what it said."""

    code: int
    output: str
    errors: str


def run(command: Command) -> Outcome:
    """Runs a program to its end and keeps what it prints.

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
    """Runs a program to its end and shows what it prints as it comes; the end of what it has to report is kept.

    Args:
        command: the program.
        merged: whether it reports on its standard output too. What is `errors` of the outcome then has both.

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


def _missing(command: Command) -> UsageError:
    program = command.arguments[0]
    return UsageError(f"{program} is not on the PATH; {_INSTALL.get(program, 'install it')}")
