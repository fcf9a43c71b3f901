"""Hosts on one bridge, each with a network, a hostname, processes, and folders of its own; nothing is left of them.

A host is a process that sleeps in namespaces of its own (namespaces(7)): network, mount, pid and uts. All that runs on
the host ends with it, as the kernel ends a pid namespace with its first process. The bridge is in namespaces of this
kind as well, so that the ends of all cables go with their hosts; and each such process ends with this one, also when
this one is killed. So there is nothing to clean up by hand, and names and addresses are by the number of this process.

It needs root, and the right to set up networks and mounts (CAP_NET_ADMIN, CAP_SYS_ADMIN).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from tests.support.documents import ROOT

_PROGRAMS = ("ip", "nsenter", "unshare", "mount")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# The folders that a host does not share with others: each is empty there.
_OWN = ("/tmp", "/var/tmp", "/dev/shm", "/root", "/home")
HOME, WORK = "/tmp/home", "/tmp/work"
"""The home and the working folder of a host."""


def why_none() -> str:
    """Why there can be no such hosts here; empty where there can be."""
    if sys.platform != "linux":
        return "hosts are namespaces of Linux"
    if os.geteuid() != 0:
        return "hosts need root"
    if missing := [program for program in _PROGRAMS if shutil.which(program) is None]:
        return f"hosts need {', '.join(missing)}"
    ours, theirs = f"probe{os.getpid()}", f"peer{os.getpid()}"
    needed = (
        f"ip link add {ours} type veth peer name {theirs} && ip link delete {ours} && "
        "unshare --mount --net --uts --pid --fork "
        "sh -c 'ip link add name bridge0 type bridge && mount -t tmpfs hosts /mnt'"
    )
    made = subprocess.run(["sh", "-c", needed], capture_output=True, text=True, timeout=60)
    return f"networks and namespaces cannot be made here ({made.stderr.strip()})" if made.returncode else ""


class Host:
    """One host.

    Attributes:
        name: its hostname, which all hosts of the network know.
        address: its IPv4 address.
        root: its files, as seen from here.
    """

    def __init__(self, name: str, address: str, holder: subprocess.Popen[bytes], switch: int) -> None:
        self.name, self.address, self._holder, self._switch = name, address, holder, switch
        (first,) = _until(lambda: psutil.Process(holder.pid).children())
        self.first_process: int = first.pid
        self.root = Path(f"/proc/{self.first_process}/root")

    def start(
        self,
        command: Sequence[str | Path],
        log: Path,
        environment: Mapping[str, str] | None = None,
        output: Path | None = None,
    ) -> Process:
        """Starts a command there, which sees of our variables those of Python and of the emulated bucket alone.

        Args:
            command: the program and its arguments.
            log: here, for its standard error.
            environment: more variables.
            output: here, for its standard output; by default with the log.
        """
        keep = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        keep |= {"HOME": HOME, "TMPDIR": "/tmp", "LANG": os.environ.get("LANG", "C.UTF-8"), **(environment or {})}
        into = ["nsenter", f"--target={self.first_process}", "--mount", "--net", "--uts", "--pid", f"--wdns={WORK}"]
        with log.open("ab") as errors, (output or log).open("ab") as said:
            started = subprocess.Popen(
                [*into, *map(str, command)],
                env=keep,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=errors,
                preexec_fn=_ends_with_us,
            )
        return Process(started)

    def cut(self) -> None:
        """Pulls its cable: packets are lost, and no connection is closed."""
        self._link("down")

    def mend(self) -> None:
        """Puts its cable back."""
        self._link("up")

    def _link(self, state: str) -> None:
        _ip_in(self._switch, "link", "set", "dev", self.name, state)

    def kill(self) -> None:
        """Ends it at once with all that runs on it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.first_process, signal.SIGKILL)
        self._holder.wait()

    def processes(self) -> list[Path]:
        """The folders in ``/proc`` of all that run there or are defunct, but for the one that holds the host."""
        with contextlib.suppress(FileNotFoundError):  # of a host that was killed
            own = (self.root / "proc").iterdir()
            return [folder for folder in own if folder.name.isdecimal() and folder.name != "1"]
        return []


class Process:
    """A process on a host."""

    def __init__(self, entering: subprocess.Popen[bytes]) -> None:
        self._entering = entering

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        for child in psutil.Process(self._entering.pid).children():
            child.send_signal(number)

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._entering.poll()

    def wait(self, timeout: float) -> int:
        """Its exit code."""
        return self._entering.wait(timeout)


class Network:
    """Hosts on a bridge, and this process on it.

    Attributes:
        address: of this process.
    """

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        number = os.getpid()
        self._subnet = _free_subnet(number)
        self.address = f"{self._subnet}.1"
        self._switch = self._held()
        (first,) = _until(lambda: psutil.Process(self._switch.pid).children())
        self._switch_pid = first.pid
        ours = f"hosts{number}"
        _until(lambda: _is_apart(self._switch_pid))
        _ip_in(self._switch_pid, "link", "add", "bridge", "type", "bridge")
        _ip_in(self._switch_pid, "link", "set", "dev", "bridge", "up")
        _ip("link", "add", ours, "type", "veth", "peer", "name", "uplink", "netns", str(self._switch_pid))
        stack.callback(_ip, "link", "delete", ours)
        _ip_in(self._switch_pid, "link", "set", "dev", "uplink", "master", "bridge", "up")
        _ip("address", "add", f"{self.address}/24", "dev", ours)
        _ip("link", "set", "dev", ours, "up")
        self._hosts: list[Host] = []

    def _held(self) -> subprocess.Popen[bytes]:
        """A process whose child sleeps in new namespaces, and ends with it, as it ends with us."""
        holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child", "sleep", "inf"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_ends_with_us,
        )

        def end() -> None:
            # Its child first, which nobody would wait for otherwise.
            for child in psutil.Process(holder.pid).children() if holder.poll() is None else ():
                child.kill()
            holder.wait()

        self._stack.callback(end)
        return holder

    def host(self, name: str) -> Host:
        """A new host of this name."""
        address = f"{self._subnet}.{len(self._hosts) + 2}"
        host = Host(name, address, self._held(), self._switch_pid)
        _until(lambda: _is_apart(host.first_process))
        pid = str(host.first_process)
        _ip_in(self._switch_pid, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", pid)
        _ip_in(self._switch_pid, "link", "set", "dev", name, "master", "bridge", "up")
        _ip_in(host.first_process, "link", "set", "dev", "lo", "up")
        _ip_in(host.first_process, "address", "add", f"{address}/24", "dev", "eth0")
        _ip_in(host.first_process, "link", "set", "dev", "eth0", "up")
        _run("nsenter", f"--target={pid}", "--uts", "hostname", name)
        _run("nsenter", f"--target={pid}", "--mount", "--pid", "sh", "-c", _own_folders())
        self._hosts.append(host)
        for known in self._hosts:
            self._tell_names(known)
        return host

    def _tell_names(self, host: Host) -> None:
        names = "".join(f"{each.address} {each.name}\n" for each in self._hosts)
        with contextlib.suppress(FileNotFoundError):  # of a host that was killed
            (host.root / "tmp/hosts").write_text(f"127.0.0.1 localhost\n{self.address} bucket\n{names}")


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A bridge for hosts, which are gone with it after the block."""
    with contextlib.ExitStack() as stack:
        yield Network(stack)


@functools.cache
def _own_folders() -> str:
    """A shell script that puts empty folders in the place of those that hosts do not share.

    The folders that Python runs from stay, also where they lie in one of them.
    """
    kept = sorted({str(Path(place).resolve()) for place in (ROOT, sys.prefix, sys.base_prefix)})
    kept = [place for place in kept if not any(place.startswith(f"{other}/") for other in kept)]
    lines = ["set -e", "mount --make-rprivate /", "mount -t tmpfs hosts /mnt", "cp /etc/hosts /mnt/hosts"]
    for number, place in enumerate(kept):
        lines += [f"mkdir /mnt/{number}", f"mount --rbind -o ro {shlex.quote(place)} /mnt/{number}"]
    lines += [f"[ ! -d {place} ] || mount -t tmpfs hosts {place}" for place in _OWN]
    for number, place in enumerate(kept):
        lines += [f"mkdir -p {shlex.quote(place)}", f"mount --rbind -o ro /mnt/{number} {shlex.quote(place)}"]
    lines += [f"mkdir {HOME} {WORK}", "cp /mnt/hosts /tmp/hosts", "mount --bind /tmp/hosts /etc/hosts"]
    # All else can be read, and is not written by one host for another.
    return "\n".join([*lines, "umount -R -l /mnt", "mount -o remount,bind,ro /"])


def _free_subnet(number: int) -> str:
    """The first three numbers of addresses that nothing here has: 10.128.0 to 10.255.255, by this process's number."""
    taken = _run("ip", "-4", "route", "show")
    for offset in range(256):
        place = (number + offset) % (1 << 15)
        subnet = f"10.{128 + place // 256}.{place % 256}"
        if f"{subnet}." not in taken:
            return subnet
    raise AssertionError("there is no subnet that is free")


def _ends_with_us() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _is_apart(process: int) -> bool:
    """Whether a process is in its own namespaces already, and sleeps."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text().strip() == "sleep"
    return False


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def _ip_in(process: int, *arguments: str) -> str:
    return _run("nsenter", f"--target={process}", "--net", "ip", *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def _until[T](what: Callable[[], T], seconds: float = 30) -> T:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "the namespaces do not come to be"
        time.sleep(0.01)
    return found
