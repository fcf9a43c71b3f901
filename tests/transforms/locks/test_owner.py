"""The owner of a lock, and whether it still runs: a lock of the dead is taken at once, and of the living never."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from transforms.coders import to_json
from transforms.locks.owner import LockOwner, read_owner, this_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells of processes")

_READ_TEXT = Path.read_text


@contextlib.contextmanager
def running(program: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs until the end of the block, at most ten seconds."""
    with subprocess.Popen([program, "10"]) as process:
        try:
            while name(process.pid) != os.path.basename(program)[:15]:
                pass  # It is called so a moment after it has begun.
            yield process
        finally:
            process.kill()


def name(process: int) -> bytes:
    return Path(f"/proc/{process}/comm").read_bytes().removesuffix(b"\n")


def started(process: int) -> str:
    """The 22nd field of proc_pid_stat(5), of which the second is the name in parentheses."""
    stat = Path(f"/proc/{process}/stat").read_bytes()
    return stat.removeprefix(b"%d (%s) " % (process, name(process))).split()[19].decode()


def owner_of(process: int) -> LockOwner:
    return dataclasses.replace(this_process(), process=process, started=started(process))


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Hides a file of /proc, as an option of its mount does with the processes of others (hidepid, proc(5))."""

    def hide(path: str) -> None:
        def read_text(self: Path, *args: str, **kwargs: str) -> str:
            if str(self) == path:
                raise FileNotFoundError(path)
            return _READ_TEXT(self, *args, **kwargs)

        monkeypatch.setattr(Path, "read_text", read_text)

    return hide


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
def test_this_process_is_named_in_full() -> None:
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    owner = this_process()
    since = datetime.datetime.strptime(owner.since, "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=datetime.UTC)
    assert before <= since <= datetime.datetime.now(datetime.UTC)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert owner == LockOwner(
        token=owner.token,
        host=socket.gethostname(),
        process=os.getpid(),
        since=owner.since,
        system=f"{boot} {os.readlink('/proc/self/ns/pid')}",
        started=started(os.getpid()),
    )
    assert str(owner) == f"process {os.getpid()} on {socket.gethostname()}, since {owner.since}"
    assert len(owner.token) == 32
    assert this_process().token != owner.token, "it may hold the lock a second time"


def test_an_owner_is_read_as_it_was_written() -> None:
    owner = this_process()
    assert read_owner(to_json(owner).encode()) == owner


@pytest.mark.parametrize("data", [b"", b"{}", b'{"token":"half of', b"\xff\xfe", b"[]"])
def test_what_is_no_owner_is_none(data: bytes) -> None:
    assert read_owner(data) is None


def test_a_process_runs_until_it_ends() -> None:
    assert this_process().runs() is True
    with running(b"sleep") as process:
        owner = owner_of(process.pid)
        assert owner.runs() is True
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert owner.runs() is True  # It is stopped, and may go on.
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert owner.runs() is False  # Its number is taken until it is waited for.
    assert owner.runs() is False


def test_a_number_that_another_process_has_by_now_is_not_it() -> None:
    assert dataclasses.replace(this_process(), started="1").runs() is False


@pytest.mark.parametrize("called", [b"a) Z 1 (b", b"\xff) Z 1"])
def test_the_name_of_a_process_may_be_anything(tmp_path: Path, called: bytes) -> None:
    program = os.fsencode(tmp_path) + b"/" + called
    shutil.copy(os.fsencode(shutil.which("sleep") or "sleep"), program)
    with running(program) as process:
        assert owner_of(process.pid).runs() is True


def test_of_another_system_nothing_is_known() -> None:
    """Another machine, another boot of this one, or another container: the number means another process there."""
    assert dataclasses.replace(this_process(), system="another").runs() is None
    assert dataclasses.replace(this_process(), system="").runs() is None


@pytest.mark.parametrize("missing", ["_BOOT", "_PID_NAMESPACE"])
def test_a_system_that_does_not_tell_which_it_is_knows_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
) -> None:
    """As macOS: there two machines would be taken for one."""
    monkeypatch.setattr(f"transforms.locks.owner.{missing}", tmp_path / "missing")
    owner = this_process()
    assert owner.system == ""
    assert owner.runs() is None


def test_a_process_that_is_hidden_may_run(hide: Callable[[str], None]) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: received.append(number))
    try:
        owner = this_process()
        hide(f"/proc/{os.getpid()}/stat")
        assert owner.runs() is None
        assert this_process().started == ""
    finally:
        signal.signal(signal.SIGHUP, before)
    assert received == [], "it is asked for, and not disturbed"


def test_a_process_of_somebody_else_that_is_hidden_may_run(
    hide: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(process: int, number: int) -> None:
        raise PermissionError(f"{process} may not get {number}")

    owner = this_process()
    hide(f"/proc/{os.getpid()}/stat")
    monkeypatch.setattr(os, "kill", kill)
    assert owner.runs() is None


def test_a_process_that_is_gone_does_not_run() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert dataclasses.replace(this_process(), process=process.pid).runs() is False
