"""Standard error, kept for the messages of a command, and standard output for its results.

Beam prints the traceback of every failed step: through its loggers, from threads straight to `sys.stderr`, and from
worker processes to the descriptor that they inherit. The error itself comes back as an exception, whose message is
shown at the end, so nothing is lost when the rest is left out; `--debug` leaves everything as it is.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from beam_pipelines.console.own_stderr import OwnStderr, take_stderr
from transforms.errors import last_line, without_controls

_OURS = ("transforms.", "beam_pipelines.", "launch.")
# Dataflow's runner logs the states and messages of a job; show them.
_RUNNER = "apache_beam.runners.dataflow.dataflow_runner"
# Beam's client of Dataflow logs the job's id and page; show these. The rest is the job with all its options.
_CLIENT = "apache_beam.runners.dataflow.internal.apiclient"
_CLIENT_NEWS = ("Created job with id", "To access the Dataflow monitoring console")
# Beam asks again after an answer that it takes for a passing failure: for minutes, in silence.
_RETRIES = "apache_beam.utils.retry"
_TRACEBACK = "Traceback (most recent call last):"

# How the hub's client says that it waits and tries again; a single time is nothing to tell of.
_HUB_CLIENT, _RETRY = "huggingface_hub.", re.compile(r"\[Retry ([2-9]|\d{2,})/(\d+)\]")

# Beam's local runner logs the records of worker processes by the root logger, as text of the protobuf `LogEntry`.
_WORKERS = "root"
# The beginning of messages of our job service to the user; Beam's client logs them by the root logger as well.
NEWS_OF_JOB = "broetchen: "

_console = Console(stderr=True)
_stderr: OwnStderr | None = None
_is_command = False
_hints = False
_goes_on = False


def console() -> Console:
    """Standard error. Progress and log lines share it, so that lines appear above the bars."""
    return _console


def output() -> Console:
    """Standard output, for tables and other results."""
    # A pipe has no width; tables are not cut for it. Names may hold text that looks like the code of an emoji.
    return _Output(width=None if sys.stdout.isatty() else 200, emoji=False)


def print_as_is(console: Console, text: str) -> None:
    """Prints a text in which nothing is taken for markup or made bright, no control acts, and no line is broken."""
    console.print(without_controls(text), markup=False, emoji=False, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Prints a line on standard error, as it is."""
    print_as_is(_console, text)


def hint(text: str) -> None:
    """Prints a line on standard error that helps a person on; none where `start` was told to leave hints out."""
    if _hints:
        say(text)


def start(*, debug: bool, quiet: bool = False, hints: bool = True, takes_time: bool = False) -> None:
    """Sets up logging, and takes standard error away from everything but `console`, unless in `debug`.

    Args:
        debug: whether to log everything.
        quiet: whether only warnings and errors are told, and no hints.
        hints: whether to print hints, where it is not quiet.
        takes_time: whether seconds may pass before there is anything to say, as Beam takes to be imported.
    """
    global _console, _is_command, _hints, _stderr
    _is_command, _hints = True, hints and not quiet
    # By force, as Beam sets up logging of its own accord when its options are looked at.
    if debug:
        lines = logging.StreamHandler(sys.stderr)
        lines.setFormatter(_WithoutControls("%(name)s: %(message)s"))
        logging.basicConfig(level=logging.DEBUG, handlers=[lines], force=True)
        return
    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(format="%(message)s", level=level, handlers=[_Lines()], force=True)
    # The name of a job elsewhere, and its page, are no progress: they are shown even where it is quiet.
    logging.getLogger(_CLIENT).setLevel(logging.INFO)
    _stderr = take_stderr()
    if _stderr:
        _console = Console(file=_stderr)
        if takes_time and not quiet:
            _stderr.pass_by("starting …")


def clear() -> None:
    """Takes the line away that says that a command is starting, if it still stands there."""
    if _stderr:
        _stderr.clear()


def will_go_on() -> None:
    """Notes that this command, where it is stopped and run again, goes on from there."""
    global _goes_on
    _goes_on = True


def goes_on() -> bool:
    """Whether a command that was stopped goes on when it is run again."""
    return _goes_on


def is_command() -> bool:
    """Whether this process is a command of ours, which may end it; a script or a notebook that calls us is none."""
    return _is_command


class _Output(Console):
    """Standard output, before which the passing line on standard error goes."""

    def print(self, *objects: Any, **how: Any) -> None:
        """As rich's."""
        clear()
        super().print(*objects, **how)


class _Lines(logging.Handler):
    """Prints our own messages, also those that come from worker processes."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == _WORKERS and record.levelno >= logging.INFO:
            if message := worker_message(record.getMessage()):
                say(message)
        elif record.name.startswith(_OURS):
            say(self.format(record))
        elif record.name.startswith(_HUB_CLIENT):
            if attempt := _RETRY.search(record.getMessage()):
                say(f"the Hugging Face hub does not answer as it should; retrying ({attempt[1]} of {attempt[2]})")
        elif record.name == _RUNNER:
            say(job_message(record.getMessage()))
        elif record.name == _RETRIES and isinstance(record.args, tuple) and len(record.args) > 2:
            wait_s, _, error, *_ = record.args
            answer = last_line(str(error))
            say(f"the service does not answer as it should ({answer}); it is asked again in {wait_s:.0f} s")
        elif record.name == _CLIENT and record.getMessage().startswith(_CLIENT_NEWS):
            say(record.getMessage())


class _WithoutControls(logging.Formatter):
    """Messages hold words of services and files, which a terminal is not to obey."""

    def format(self, record: logging.LogRecord) -> str:
        return without_controls(super().format(record))


def job_message(text: str) -> str:
    """A message of a job on one line: of a traceback, its end.

    >>> job_message("09:00: JOB_MESSAGE_ERROR: Traceback (most recent call last):\\n  File …\\nValueError: boom\\n")
    '09:00: JOB_MESSAGE_ERROR: ValueError: boom'
    """
    said, traceback, rest = text.partition(_TRACEBACK)
    return " ".join([*said.split(), *([last_line(rest)] if traceback else [])])


def worker_message(entry: str) -> str | None:
    """The message of a worker's log entry if our code logged it.

    >>> here = Path(__file__).parents[2]
    >>> worker_message(f'message: "a \\u201cb\\u201d" log_location: "{here}/transforms/files/storage.py:7"')
    'a “b”'
    >>> worker_message('message: "a" log_location: "/usr/lib/python3/logging/__init__.py:7"')
    """
    if entry.startswith(NEWS_OF_JOB):
        return entry.removeprefix(NEWS_OF_JOB)
    from apache_beam.portability.api import beam_fn_api_pb2
    from google.protobuf import text_format  # type: ignore[import-untyped]

    try:
        parsed = text_format.Parse(entry, beam_fn_api_pb2.LogEntry())
    except text_format.ParseError:
        return None
    root = Path(__file__).parents[2]
    ours = tuple(f"{root / package.removesuffix('.')}{os.sep}" for package in _OURS)
    return parsed.message if parsed.log_location.startswith(ours) else None
