"""The resources that commands on hosts use: time, processors, memory, and bytes through each host's interface.

The kernel keeps most of these accounts: bytes by the interface of the host's network namespace, processor time by
process, with that of the children that it has waited for. Memory is sampled: the sum of the resident set sizes of all
processes of the host, so that a page that two of them share counts twice.
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.hosts.network import Host, Process

_INTERVAL_S = 0.25
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class HostUse:
    """The resources that one host has used during a command.

    Attributes:
        cpu_seconds: user and system time of all processes that ran there.
        received_bytes: through its interface, headers included.
        sent_bytes: the same.
        peak_rss_bytes: the largest sampled sum of its processes' RSS.
        peak_scratch_bytes: the most that was seen in its ``/tmp``, which is in memory and in no process's RSS.
    """

    cpu_seconds: float
    received_bytes: int
    sent_bytes: int
    peak_rss_bytes: int
    peak_scratch_bytes: int


@dataclass(frozen=True)
class Use:
    """The resources that a command has used, where it ran on hosts.

    Attributes:
        seconds: from its start to its end.
        hosts: in the order in which they were given; the first is the one of the command.
        bucket_cpu_seconds: of this process, in which the bucket is served.
    """

    seconds: float
    hosts: tuple[HostUse, ...]
    bucket_cpu_seconds: float


def measure_on(hosts: Sequence[Host], start: Callable[[], Process], longest_s: float) -> tuple[int, Use]:
    """Runs a command on the first host, and measures all of them.

    Args:
        hosts: among which is all that works for the command.
        start: starts it. No other process that this one has started may end meanwhile.
        longest_s: seconds after which it is given up.

    Returns:
        Its exit code, and the resources that it has used.

    Raises:
        subprocess.TimeoutExpired: it takes longer.
    """
    before = [(_cpu_seconds(host), *interface_bytes(host)) for host in hosts]
    waited, own = _waited_seconds(), time.process_time()
    with _sampled(hosts) as peaks:
        started = time.perf_counter()
        code = start().wait(longest_s)
        seconds = time.perf_counter() - started
    uses = []
    for index, host in enumerate(hosts):
        cpu, received, sent = before[index]
        # The command itself has gone from its host, and is in the account of its parent here.
        gone = _waited_seconds() - waited if index == 0 else 0.0
        now_received, now_sent = interface_bytes(host)
        uses.append(HostUse(_cpu_seconds(host) - cpu + gone, now_received - received, now_sent - sent, *peaks[index]))
    return code, Use(seconds, tuple(uses), time.process_time() - own)


def interface_bytes(host: Host) -> tuple[int, int]:
    """Bytes that have come to a host's interface since it is there, and bytes that were sent."""
    for line in (host.root / "proc/1/net/dev").read_text().splitlines():
        name, _, counters = line.strip().partition(":")
        if name == "eth0":
            numbers = [int(number) for number in counters.split()]
            return numbers[0], numbers[8]
    raise ValueError(f"{host.name} has no interface eth0")


@contextlib.contextmanager
def _sampled(hosts: Sequence[Host]) -> Iterator[list[tuple[int, int]]]:
    """Peaks of RSS and of scratch for each host, which are whole after the block."""
    peaks = [(0, 0)] * len(hosts)
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_INTERVAL_S):
            for index, host in enumerate(hosts):
                rss, scratch = peaks[index]
                peaks[index] = (max(rss, _rss_bytes(host)), max(scratch, _scratch_bytes(host)))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield peaks
    finally:
        ended.set()
        sampler.join()


def _rss_bytes(host: Host) -> int:
    return sum(int(fields[1]) for fields in _of_processes(host, "statm")) * _PAGE_BYTES


def _scratch_bytes(host: Host) -> int:
    with contextlib.suppress(OSError):
        about = os.statvfs(host.root / "tmp")
        return (about.f_blocks - about.f_bfree) * about.f_frsize
    return 0


def _cpu_seconds(host: Host) -> float:
    """The CPU time of all processes, defunct ones included, with those that they have waited for."""
    ticks = 0
    for fields in _of_processes(host, "stat"):
        ticks += sum(int(field) for field in fields[11:15])  # utime to cstime in proc_pid_stat(5)
    return ticks / _TICKS_PER_S


def _of_processes(host: Host, file: str) -> Iterator[list[str]]:
    """The fields of a file in ``/proc`` of each process, from the one after the name in brackets on."""
    for folder in host.processes():
        with contextlib.suppress(OSError):
            yield Path(folder, file).read_text().rpartition(")")[2].split()


def _waited_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
