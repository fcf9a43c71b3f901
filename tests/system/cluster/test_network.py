"""The hosts that the tests of clusters stand on: they share nothing, and nothing is left of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.documents import ROOT
from tests.support.hosts.network import HOME, WORK, Host, network, why_none

_REASON = why_none()
pytestmark = pytest.mark.skipif(bool(_REASON), reason=_REASON)


def has_cable(process: int) -> bool:
    """Whether this machine has the end of a cable to hosts of a process; other tests have theirs."""
    return f"hosts{process}" in os.listdir("/sys/class/net")


def said(host: Host, log: Path, *command: str) -> str:
    log.unlink(missing_ok=True)
    assert host.start(command, log).wait(60) == 0, log.read_text()
    return log.read_text()


def test_hosts_share_nothing_and_leave_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with network() as made:
        first, second = made.host("first"), made.host("second")
        holders = [psutil.Process(host.first_process) for host in (first, second)]
        look = f"hostname && python -c 'import socket; print(socket.getfqdn())' && echo $HOME && pwd && touch {WORK}/x"
        assert said(first, log, "sh", "-c", look).split() == ["first", "first", HOME, WORK]
        assert "x" not in said(second, log, "ls", WORK, HOME)
        assert not Path(WORK).exists()
        assert str(tmp_path) not in said(first, log, "find", "/tmp", "-maxdepth", "3")
        assert "Read-only file system" in said(first, log, "sh", "-c", "touch /var/tmp/../x 2>&1 || true")
        second.kill()
        assert second.processes() == []
        assert has_cable(os.getpid())
    assert not has_cable(os.getpid())
    assert not [holder for holder in holders if holder.is_running()]


def test_a_cut_link_loses_what_is_sent_until_it_is_mended(tmp_path: Path) -> None:
    with network() as made:
        first, second = made.host("first"), made.host("second")
        serve = (
            "import socket; s = socket.create_server(('second', 9)); print('up', flush=True)\nwhile True: s.accept()"
        )
        second.start(["python", "-c", serve], tmp_path / "server")
        deadline = time.monotonic() + 60
        while "up" not in (tmp_path / "server").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        ask = "import socket; s = socket.socket(); s.settimeout(2); print(s.connect_ex(('second', 9)))"
        assert said(first, tmp_path / "log", "python", "-c", ask) == "0\n"
        second.cut()
        assert said(first, tmp_path / "log", "python", "-c", ask) != "0\n"
        second.mend()
        assert said(first, tmp_path / "log", "python", "-c", ask) == "0\n"


def test_nothing_is_left_of_a_failed_or_a_killed_test() -> None:
    with contextlib.suppress(ZeroDivisionError), network() as made:
        made.host("first")
        _ = 1 / 0
    assert not has_cable(os.getpid())
    program = "import time; from tests.support.hosts.network import network\n"
    program += "with network() as made:\n    print(made.host('first').first_process, flush=True)\n    time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT) as other:
        assert other.stdout is not None
        holder = int(other.stdout.readline())
        assert has_cable(other.pid)
        other.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while has_cable(other.pid) or (psutil.pid_exists(holder) and psutil.Process(holder).status() != "zombie"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
