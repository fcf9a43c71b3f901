"""Runs a command and measures its whole process tree: time, memory, CPU and disk (Linux only).

CPU time and disk bytes come from the kernel's own accounts, which a parent inherits from each child it waits for. This
process therefore makes itself the subreaper of its descendants (``prctl(2)``), so that orphans (a fork server, a Beam
worker) are waited for here too, and reads its accounts before and after. Memory has no such account and is sampled:
the sum over the tree of the proportional set sizes (PSS: pages shared by n processes count 1/n in each), and of the
resident set sizes (RSS: they count in full in each). It runs as a process of its own, so that nothing else is in its
accounts::

    python -m benchmarks.harness.measure --log run.log -- program argument ...
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
ORPHAN_GRACE_SECONDS = 10.0
# Without its bytecode on disk, `import apache_beam` takes three times as long, in every process.
DISTURBING_VARIABLES = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")


class ContenderFailed(RuntimeError):
    """A measured command ended with an error; the message holds the end of its output."""


@dataclass(frozen=True)
class Measurement:
    """The resources that one command used, its descendants included.

    Attributes:
        exit_code: of the command itself; negative if a signal ended it.
        wall_seconds: from its start to its end.
        cpu_seconds: user and system time.
        peak_pss_bytes: the largest sampled sum of PSS.
        peak_rss_bytes: the largest sampled sum of RSS.
        disk_read_bytes: fetched from the block device, the kernel's readahead included; cached pages cost nothing.
        disk_written_bytes: handed to the block device or dirtied for it.
        samples: number of memory samples.
        meter_cpu_seconds: user and system time of the sampling itself.
    """

    exit_code: int
    wall_seconds: float
    cpu_seconds: float
    peak_pss_bytes: int
    peak_rss_bytes: int
    disk_read_bytes: int
    disk_written_bytes: int
    samples: int
    meter_cpu_seconds: float


class MemorySampler(threading.Thread):
    """Samples the memory of a process and its descendants until ``stop`` is called.

    RSS costs microseconds and is taken at every interval. PSS makes the kernel walk the page tables of the process,
    which slows it down: it is taken where RSS rose 3 % above its peak so far, and at every twentieth interval. The list
    of processes is made again at every fourth.
    """

    def __init__(self, pid: int, interval_seconds: float) -> None:
        super().__init__(daemon=True)
        self.peak_pss_bytes = self.peak_rss_bytes = self.samples = 0
        self._pid = pid
        self._interval = interval_seconds
        self._done = threading.Event()
        self._tree: list[psutil.Process] = []

    def stop(self) -> None:
        """End the sampling and wait for the last sample."""
        self._done.set()
        self.join()

    def run(self) -> None:
        """Take a sample at every interval."""
        while not self._done.is_set():
            started = time.monotonic()
            if self.samples % 4 == 0:
                self._tree = _tree(self._pid)
            rss = sum(_memory(process, "rss") for process in self._tree)
            if rss > 1.03 * self.peak_rss_bytes or self.samples % 20 == 0:
                pss = sum(_memory(process, "pss") for process in self._tree)
                self.peak_pss_bytes = max(self.peak_pss_bytes, pss)
            self.peak_rss_bytes = max(self.peak_rss_bytes, rss)
            self.samples += 1
            self._done.wait(max(0.0, self._interval - (time.monotonic() - started)))


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _memory(process: psutil.Process, kind: str) -> int:
    """RSS or PSS of one process in bytes; 0 if it has ended or is a zombie."""
    try:
        memory = process.memory_full_info() if kind == "pss" else process.memory_info()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
    return int(getattr(memory, kind))


def _disk_bytes() -> tuple[int, int]:
    counters = psutil.Process().io_counters()
    return counters.read_bytes, counters.write_bytes


def _wait_for_orphans() -> None:
    """Reap processes that the command left behind; end them after a while, so that none stops the benchmark."""
    deadline = time.monotonic() + ORPHAN_GRACE_SECONDS
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            if time.monotonic() > deadline:
                for orphan in psutil.Process().children(recursive=True):
                    orphan.kill()
            time.sleep(0.02)


def measure(command: Sequence[str], log: Path, *, interval_seconds: float = 0.05) -> Measurement:
    """Run ``command`` with its output in ``log``, and measure it. Call it once in a process that does nothing else."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
    read_before, written_before = _disk_bytes()
    cpu_before = time.process_time()
    environment = {name: value for name, value in os.environ.items() if name not in DISTURBING_VARIABLES}
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        sampler = MemorySampler(process.pid, interval_seconds)
        sampler.start()
        try:
            exit_code = process.wait()
            wall_seconds = time.perf_counter() - started
        finally:
            sampler.stop()
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            _wait_for_orphans()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    read_after, written_after = _disk_bytes()
    return Measurement(
        exit_code=exit_code,
        wall_seconds=wall_seconds,
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_pss_bytes=sampler.peak_pss_bytes,
        peak_rss_bytes=sampler.peak_rss_bytes,
        disk_read_bytes=read_after - read_before,
        disk_written_bytes=written_after - written_before,
        samples=sampler.samples,
        meter_cpu_seconds=time.process_time() - cpu_before,
    )


def measure_apart(command: Sequence[str], log: Path) -> Measurement:
    """``measure`` in a process of its own.

    Raises:
        ContenderFailed: the command ended with an error.
    """
    meter = [sys.executable, "-m", "benchmarks.harness.measure", "--log", str(log), "--", *command]
    answer = subprocess.run(meter, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True, check=True)
    measurement = Measurement(**json.loads(answer.stdout))
    if measurement.exit_code != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
        raise ContenderFailed(f"{' '.join(command)} ended with {measurement.exit_code}; its last lines:\n{tail}")
    return measurement


def main() -> None:
    """Measure the command after ``--`` and print the measurement as JSON."""
    parser = argparse.ArgumentParser(description="Run a command and print what its process tree used, as JSON.")
    parser.add_argument("--log", type=Path, required=True, help="file for the output of the command")
    parser.add_argument("--interval", type=float, default=0.05, help="seconds between two memory samples")
    parser.add_argument("command", nargs="+", help="the command, after --")
    arguments = parser.parse_args()
    print(json.dumps(asdict(measure(arguments.command, arguments.log, interval_seconds=arguments.interval))))


if __name__ == "__main__":
    main()
