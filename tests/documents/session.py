"""Works through a document as a reader does: runs its blocks, in order, in one folder, and compares what it shows.

A block of commands is a fence without a language. Their output may follow in a fence of language `text`;
where a part of it is not the same each time, the line before that fence says so by a regular expression:
``<!-- varies: \\d+ -->``. Durations and rates may always differ.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.command import run_command

_BLOCK = re.compile(
    r"^```(?P<language>\w*)\n(?P<commands>.*?)^```\n"
    r"(?P<between>\n(?:<!-- varies: (?P<varies>[^\n]*) -->\n)?```text\n)?(?(between)(?P<shown>.*?)^```\n)",
    re.M | re.S,
)
_HERE_DOCUMENT = re.compile(r"<<'(\w+)'$")
# Figures that depend on the machine and its load.
_MEASURED = re.compile(r"\d[\d.,]*[KMGT]?\s?(?:s|min|h|[KMG]?B/s|M?tok/s|tokens a second)(?![\w/])")
# A command may wait for others on a machine that is busy.
_TIMEOUT_S = 1200


@dataclass(frozen=True)
class Block:
    """Commands, and what the document says that they print.

    Attributes:
        commands: as they stand there.
        shown: the text; None where nothing is shown.
        varies: a regular expression of what may differ in it.
    """

    commands: str
    shown: str | None
    varies: str | None

    def agrees(self, printed: str) -> bool:
        """Whether the document shows what was printed, but for what varies and the widths of columns."""
        return self.shown is None or self._settled(self.shown) == self._settled(printed)

    def _settled(self, text: str) -> list[str]:
        if self.varies:
            text = re.sub(self.varies, "…", text, flags=re.M)
        text = _MEASURED.sub("…", text)
        lines = (" ".join(re.sub("─+", "─", line).split()) for line in text.splitlines())
        return [line for line in lines if line]


def blocks_of(text: str) -> list[Block]:
    """The blocks of a document, in order."""
    return [block for found in _BLOCK.finditer(text) if (block := _block(found))]


def _block(found: re.Match[str]) -> Block | None:
    return None if found["language"] else Block(found["commands"], found["shown"], found["varies"])


def with_outputs(text: str, printed: list[str]) -> str:
    """The document with what its blocks have printed, where it shows something else."""
    outputs = iter(printed)

    def renewed(found: re.Match[str]) -> str:
        block = _block(found)
        if block is None or block.agrees(output := next(outputs)):
            return found[0]
        start, end = found.span("shown")
        return f"{found[0][: start - found.start()]}{output}{found[0][end - found.start() :]}"

    return _BLOCK.sub(renewed, text)


class Session:
    """A reader's shell.

    Args:
        folder: the working directory to begin with.
        changed: what becomes of a command before it is run, such as the name of a bucket.
    """

    def __init__(self, folder: Path, changed: Callable[[str], str] = lambda command: command) -> None:
        self._start = self._folder = folder
        self._changed = changed

    def run(self, block: Block) -> str:
        """Runs the commands of a block, of which each has to succeed, and returns what they print.

        That is their standard output, or, for one that has nothing to say there, its standard error.
        """
        printed = "".join(self._run(command) for command in _commands(self._changed(block.commands)))
        lines = [line.rstrip() for line in printed.replace(str(self._start), "…").splitlines()]
        return "\n".join(lines).strip("\n") + "\n"

    def _run(self, command: str) -> str:
        words = [] if "\n" in command else shlex.split(command, comments=True)
        match words:
            case ["make" | "source", *_]:
                return ""  # The environment is the one that this runs in.
            case ["cd", folder]:
                self._folder = self._folder / folder
                return ""
        before = os.getcwd()
        os.chdir(self._folder)
        try:
            match words:
                case ["broetchen", *arguments]:
                    done = run_command(*arguments, timeout=_TIMEOUT_S)
                case ["python", "-m", module, *arguments]:
                    done = run_command(*arguments, module=module, timeout=_TIMEOUT_S)
                case _:
                    done = subprocess.run(["sh", "-eu", "-c", command], capture_output=True, text=True, check=False)
        finally:
            os.chdir(before)
        if done.returncode:
            raise AssertionError(f"{command}\nended with {done.returncode}: {done.stderr}")
        return done.stdout if done.stdout.strip() else done.stderr


def _commands(text: str) -> list[str]:
    """The commands of a block: lines, those that go on after a backslash as one, and files written in place."""
    found: list[str] = []
    end: str | None = None
    for line in text.replace("\\\n", " ").splitlines():
        if end is not None:
            found[-1] += f"\n{line}"
            end = None if line == end else end
        elif line.strip():
            found.append(line)
            here = _HERE_DOCUMENT.search(line)
            end = here[1] if here else None
    return found


def log(text: str) -> None:
    """Says how far it is."""
    print(text, file=sys.stderr, flush=True)
