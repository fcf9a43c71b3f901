"""A dry run's output: a script with the commands of the run, to run by hand."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from launch.job import Command, JobFile


def comment(text: str) -> str:
    """A line that introduces the next ones.

    >>> comment("a\\nrm -rf b")
    '# a rm -rf b'
    """
    return f"# {' '.join(text.split())}"


def command_lines(command: Command) -> str:
    """A command, below its purpose."""
    return f"{comment(command.purpose)}\n{command.shell_line()}"


def file_lines(folder: str, file: JobFile) -> str:
    """The lines that write a file: its content as it is, which no shell looks into."""
    end = "END_OF_FILE"
    while end in file.content.split("\n"):
        end += "_"
    content = file.content if file.content.endswith("\n") or not file.content else f"{file.content}\n"
    return f"{comment(file.purpose)}\ncat > {shlex.quote(f'{folder}/{file.name}')} <<'{end}'\n{content}{end}"


def script(parts: Iterable[str]) -> str:
    """The parts, apart from each other."""
    return "\n\n".join(parts) + "\n"
