"""The owner of a lock: which process, on which machine, and whether it still runs, as far as this machine can tell."""

from __future__ import annotations

import dataclasses
import datetime
import os
import socket
import uuid
from pathlib import Path

from transforms.coders import from_json
from transforms.locks.job import RemoteJob

_BOOT, _PID_NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
_ENDED = frozenset("ZX")


@dataclasses.dataclass(frozen=True)
class LockOwner:
    """A process that holds a lock.

    Attributes:
        token: tells this holding of the lock from any other.
        host: the name of the machine.
        process: its number there.
        since: when it took the lock by that machine's clock, UTC; for people, as no clock is trusted here.
        system: the boot and the namespace in which the number means that process; empty where that is unknown.
        started: of the process, in the kernel's ticks since the boot, as a number may be given to another process.
        job: the one that it has a service run; None where it works itself.
    """

    token: str
    host: str
    process: int
    since: str
    system: str
    started: str
    job: RemoteJob | None = None

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"

    def runs(self) -> bool | None:
        """Whether the process still runs; None where this machine cannot tell."""
        if not self.system or self.system != _system():
            return None
        found = _state_and_start(self.process)
        if found is None:
            # Where /proc hides the processes of others (hidepid, proc(5)), a signal still tells whether there is one.
            return None if _exists(self.process) else False
        state, started = found
        return state not in _ENDED and started == self.started


def this_process(job: RemoteJob | None = None) -> LockOwner:
    """This process, about to take a lock, for itself or for `job`."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    process = os.getpid()
    _, started = _state_and_start(process) or ("", "")
    return LockOwner(uuid.uuid4().hex, socket.gethostname(), process, now, _system(), started, job)


def read_owner(data: bytes) -> LockOwner | None:
    """The owner that `to_json` wrote, or None for anything else, such as a file that was just made."""
    try:
        return from_json(LockOwner, data)
    except ValueError:
        return None


def _system() -> str:
    """A value that is the same for all processes that see each other by number, where /proc tells it."""
    try:
        return f"{_BOOT.read_text().strip()} {os.readlink(_PID_NAMESPACE)}"
    except OSError:
        return ""


def _state_and_start(process: int) -> tuple[str, str] | None:
    """The state of a process, one letter, and when it started, in ticks since the boot; None where it is not shown."""
    try:
        # Its name comes second, in parentheses, and may hold anything (proc_pid_stat(5)).
        fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], fields[19]


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True
