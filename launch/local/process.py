"""The process that trains on this machine: started, watched and stopped, one a run.

It is a process group of its own, and holds the run's lock, a file: it lives on where the process that started it is
killed, and is found again by the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from transforms.files.own_file import open_own

POLL_S = 0.5
"""Seconds between two looks at it."""

# A step may have to end first, and MaxText's workers after it.
_STOP_S = 30


def run_trainer(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    lock: int,
    watch: Callable[[], None],
) -> int:
    """Runs a trainer to its end, and answers with its exit status, negative for a signal's number.

    It ends with this process where that is interrupted, and with it all that it has started.

    Args:
        command: the trainer.
        folder: its working directory.
        environment: all of its environment variables.
        log: the file to which its output is appended.
        lock: of `held`.
        watch: is called every half second, and once more when the trainer has ended.
    """
    with open(open_own(log, flags=os.O_APPEND), "ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(lock,),
        )
        _note_owner(lock, process.pid)
        try:
            with _interrupted_by_signals() as check:
                ended = False
                while not ended:
                    ended = _ended(process)
                    watch()
                    check()
        except BaseException:
            # Signals that this process ignores, as in the background of a script, its trainer ignores as well.
            ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            process.send_signal(signal.SIGTERM if ignored else signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
            raise
        finally:
            # Workers that a trainer left behind; after the leader's end the group has no other members.
            _kill_group(process.pid)
            process.wait()
    return process.returncode


def stop_trainer(lock: Path, owner: int) -> None:
    """Ends the trainer that `owner_of` has found, by force where it does not end by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(owner, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    while owner_of(lock) == owner:
        if time.monotonic() > deadline:
            _kill_group(owner)
            deadline = float("inf")
        time.sleep(POLL_S)
    # Workers of a trainer that ended without tidying up.
    _kill_group(owner)


@contextlib.contextmanager
def held(path: Path) -> Iterator[int | None]:
    """Holds a run's lock, of which the trainer gets a copy: it is free when both have ended. None where it is taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = open_own(path, mode=0o644)
    try:
        yield lock if _taken(lock) else None
    finally:
        os.close(lock)


def owner_of(path: Path) -> int | None:
    """The trainer's process, and process group, while it runs.

    Raises:
        BroetchenError: the lock is no file of this user's: another could name a process there, which would be stopped.
    """
    try:
        with open(open_own(path, make=False), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
            return None
    except FileNotFoundError:
        return None


def _taken(lock: int) -> bool:
    """Takes the lock. `owner_of` may hold it for a moment, to see whether it is free."""
    for _ in range(10):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(POLL_S / 10)
        else:
            return True
    return False


def _note_owner(lock: int, pid: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(pid).encode(), 0)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(POLL_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[Callable[[], None]]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that the trainer does not live on by itself.

    Signals that this process ignores, as under `nohup` and a script's `&`, stay ignored.

    Yields a function that also ends the block if one of them has come: Python drops an exception that a signal raises
    while an object is finalized.
    """
    signalled = False

    def check() -> None:
        if signalled:
            raise KeyboardInterrupt

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal signalled
        signalled = True
        check()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    wanted = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in wanted}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
