"""Faults from within a process. Python imports this by its name at the start of each process that finds it.

Its environment names the faults:

    CAMPAIGN_OPERATIONS  a file to which each operation on the files of CAMPAIGN_OUTPUT is appended, as "event path"
    CAMPAIGN_KILL        {"pattern": …, "number": n}: SIGKILL right before the nth operation that the pattern matches
    CAMPAIGN_CLOCK       a seed: the wall clock jumps, by years in either direction
    CAMPAIGN_WAIT        {"pattern": …, "gate": path}: each operation that matches waits as long as that file is there
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import sys
import time

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_JUMP_S, _CALLS_BETWEEN_JUMPS = 10 * 365 * 86400, 20


def operation(event: str, arguments: tuple[object, ...]) -> str | None:
    """An audit event as "event path", or None for one that changes no file of the output (PEP 578)."""
    if event == "os.rename":
        path = arguments[1]
    elif event in ("os.remove", "os.rmdir", "os.mkdir"):
        path = arguments[0]
        # `shutil.rmtree` names files within a folder that it has opened.
        if arguments[-1] != -1:
            return f"{event} within {os.fspath(path)}" if isinstance(path, str) else None
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES:
        path = arguments[0]
    else:
        return None
    inside = isinstance(path, str) and path.startswith(os.environ["CAMPAIGN_OUTPUT"])
    return f"{event} {path}" if inside else None


def _note_operations(name: str) -> None:
    notes = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(event: str, arguments: tuple[object, ...]) -> None:
        found = operation(event, arguments)
        if found:
            os.write(notes, f"{found}\n".encode())

    sys.addaudithook(note)


def _kill(pattern: str, number: int) -> None:
    matches, numbers = re.compile(pattern), itertools.count(1)

    def kill(event: str, arguments: tuple[object, ...]) -> None:
        found = operation(event, arguments)
        if found and matches.search(found) and next(numbers) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)


def _wait(pattern: str, gate: str) -> None:
    matches = re.compile(pattern)

    def wait(event: str, arguments: tuple[object, ...]) -> None:
        found = operation(event, arguments)
        while found and matches.search(found) and os.path.exists(gate):
            time.sleep(0.05)

    sys.addaudithook(wait)


def _let_the_clock_jump(seed: str) -> None:
    chance, calls, real = random.Random(seed), itertools.count(), time.time_ns
    jump = 0

    def jumping() -> int:
        nonlocal jump
        if next(calls) % _CALLS_BETWEEN_JUMPS == 0:
            jump = int(chance.uniform(-_JUMP_S, _JUMP_S) * 1e9)
        return real() + jump

    time.time_ns = jumping
    time.time = lambda: jumping() / 1e9


if "CAMPAIGN_OPERATIONS" in os.environ:
    _note_operations(os.environ["CAMPAIGN_OPERATIONS"])
if "CAMPAIGN_KILL" in os.environ:
    _kill(**json.loads(os.environ["CAMPAIGN_KILL"]))
if "CAMPAIGN_WAIT" in os.environ:
    _wait(**json.loads(os.environ["CAMPAIGN_WAIT"]))
if "CAMPAIGN_CLOCK" in os.environ:
    _let_the_clock_jump(os.environ["CAMPAIGN_CLOCK"])
