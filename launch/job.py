"""A training job, for any machine: MaxText's parameters, and the files beside it.

A target turns a job into commands. Commands are lists of arguments from here on: no name ever reaches a shell.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The types of MaxText's parameters on its command line.
Value = str | int | float | bool


@dataclass(frozen=True)
class Command:
    """A program with its arguments, and in one line its purpose."""

    arguments: tuple[str, ...]
    purpose: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def shell_line(self) -> str:
        """The command as a line that can be pasted into a shell.

        >>> Command(("echo", "a b", "$(c)"), "prints").shell_line()
        "echo 'a b' '$(c)'"
        """
        words = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*words, shlex.join(self.arguments)])


@dataclass(frozen=True)
class JobFile:
    """A small text file that the job reads: `name` has no folder; the target puts it into the job's folder."""

    name: str
    content: str
    purpose: str

    def write(self, folder: Path) -> None:
        """Writes it into a folder, which is there."""
        (folder / self.name).write_text(self.content, encoding="utf-8")


@dataclass(frozen=True)
class TrainingJob:
    """One run of `maxtext.trainers.pre_train.train`.

    `parameters` are all that differ from MaxText's base.yml; values that name one of `files` are written as
    `{files}/NAME`, and the target puts its folder in the place of `{files}`. So are the words of `before`: a program in
    Python with its arguments, which the trainer's arguments are added to, and which becomes the trainer in the end.
    """

    name: str
    parameters: Mapping[str, Value]
    files: tuple[JobFile, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()
