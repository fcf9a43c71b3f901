"""Gives the result of a command: on standard output, and in a file where one is named."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from typing import cast

from rich.console import Console

from beam_pipelines.console import terminal
from beam_pipelines.console.layout import OutputFormat, as_text
from transforms.errors import UsageError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def chosen_format(output_format: str, as_json: bool) -> OutputFormat:
    """The format that `--format` and `--json` ask for together.

    Raises:
        UsageError: they say two things.
    """
    if as_json and output_format == "csv":
        raise UsageError("--json is short for --format json, and does not go with --format csv; give one of them")
    return "json" if as_json else cast(OutputFormat, output_format)


def give(show: Callable[[Console], None], file: str | None) -> None:
    """Prints a result, and writes the same to a file.

    Args:
        show: prints it on a console.
        file: on any filesystem that Beam knows; None for none.

    Raises:
        BroetchenError: the file cannot be written.
    """
    show(terminal.output())
    if file is not None:
        from transforms.files import storage

        storage.write_bytes(file, as_text(show).encode())


def given_options(
    *,
    dataset: Sequence[str] | None = None,
    settings: Sequence[str] | None = None,
    source_root: str | None = None,
    engine: str = "auto",
) -> tuple[str, ...]:
    """The options of a command line that choose its subject, for the line of the next command."""
    words = [f"--dataset={name}" for name in dataset or ()]
    words += [f"--set={setting}" for setting in settings or ()]
    words += [] if source_root is None else [f"--source-root={source_root}"]
    return (*words, *([] if engine == "auto" else [f"--engine={engine}"]))


def next_command(*words: str) -> None:
    """Names the next command to run, in the last line of standard error; not with `--quiet` or `--json`.

    Args:
        *words: after `broetchen`, not quoted; words of capitals stand for values that the user has to fill in.
    """
    terminal.hint(f"Next: {shlex.join(['broetchen', *words])}")


def from_here(path: str) -> str:
    """A path of the command line as one that does not depend on a config's folder."""
    return path if _SCHEME.match(path) else os.path.abspath(path)
