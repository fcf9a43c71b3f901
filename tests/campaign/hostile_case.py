"""A hostile case, and the ends that it may have."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pyarrow as pa

from transforms.errors import BroetchenError

Ending = Literal["error", "skipped", "built", "wrong"]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        ending: `error`: one of ours, as a user sees it. `skipped`: built, with rows left out, and all of it checked.
            `built`: built whole, and checked; the harm met nothing that was needed, or nothing that anyone could see.
            `wrong`: anything else.
        detail: the error's message, or the fault.
        grown_bytes: by how much a command grew that the case ran.
    """

    ending: Ending
    detail: str = ""
    grown_bytes: int = 0


class Wrong(Exception):
    """A case that ended as none may."""


@dataclasses.dataclass(frozen=True)
class CaseKind:
    """A family of cases: `attempt` makes one in an empty folder and brings it to an outcome.

    Attributes:
        weight: how many cases of a campaign are of this kind, in parts.
        memory_mib: by how much the process may grow at its peak.
        timeout_s: when it counts as hanging.
        heavy: whether one takes seconds by itself; a campaign has few of those.
    """

    name: str
    attempt: Callable[[random.Random, Path], Outcome]
    weight: int = 10
    memory_mib: int = 400
    timeout_s: float = 120
    heavy: bool = False


def forget_peak() -> None:
    """Lets the peak of this process's memory begin again, once a case has made its input."""
    pa.default_memory_pool().release_unused()
    Path("/proc/self/clear_refs").write_text("5")


def outcome_of(work: Callable[[], Outcome]) -> Outcome:
    """Runs `work`; an error of ours is an outcome, if it is one that can be shown."""
    try:
        return work()
    except BroetchenError as error:
        message = str(error)
        if not message.strip() or "Traceback (most recent call last)" in message or len(message) > 20_000:
            return Outcome("wrong", f"not a message to show: {message[:500]!r}")
        return Outcome("error", message)
    except Wrong as wrong:
        return Outcome("wrong", str(wrong))
