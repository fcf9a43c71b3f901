"""The trials of the fault campaign: each makes something go wrong in a build, and then holds it to its promises.

A trial raises an AssertionError where the promise is broken, and otherwise tells its work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.campaign.fault_bench import FaultBench, check_clean_failure, requests_seen
from tests.support.command import kill_session, workers_of
from tests.support.forks import Forked
from tests.support.killed_builds import State, wait_for
from tests.support.services.fault_proxy import fault_proxy
from transforms.files import storage

WAIT_S = 120.0
_WORKERS = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
# A holder that is stopped between taking the lock and writing down who it is does not say.
_HOLDER = r"process \d+ on \S+, since .*|it does not say which process"
_REFUSED = rf"another build is at work there \(({_HOLDER})\); wait until"

# Moments by the operations on files right before which a build is killed.
OPERATIONS = {
    "tokenizer": r"/tokenizer-",
    "plan and budgets": r"^os.mkdir|/\.?budgets-",
    "shard begun": r"^open .*/\.shard-[\w-]+\.arecord",
    "shard put in place": r"^os.rename .*/shard-[\w-]+\.arecord$",
    "shard counted": r"/\.?shard-[\w-]+\.(rows|json)",
    "publication noted": r"/\.?publication-",
    "shard at a cut written": r"/\.broetchen/.*/\.?(train|eval)-\d+",
    "shard renamed to its final name": r"^os.rename .*/(train|eval)-\d+-of-\d+\.arecord$",
    "manifest": r"/\.?manifest\.json",
    "work cleared away": r"^os\.(remove|rmdir) within|^os.rmdir",
    "lock": r"/\.broetchen\.lock$",
}

# Moments by the requests to the bucket that are under way.
REQUESTS = {
    "upload begun": r"^POST .*uploadType=resumable",
    "upload": r"^PUT |^POST .*uploadType=multipart",
    "rename: copy": r"^POST .*/copyTo/",
    "rename: delete": r"^DELETE ",
    "look-up or listing": r"^GET ",
}


@dataclasses.dataclass(frozen=True)
class Done:
    """The result of a trial: the moment of its fault, and the number of kills that came in time."""

    moment: str
    kills: int


Trial = Callable[[FaultBench, random.Random, str], Done]


def signalled(code: int | None) -> int:
    return int(code == -signal.SIGKILL)


def kill_at_operation(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """Killed right before an operation on a file, sometimes several times in a row."""
    output, kills = str(bench.folder / name), 0
    moment = chance.choice(sorted(OPERATIONS))
    pattern = OPERATIONS[moment]
    times = len([operation for operation in bench.operations if re.search(pattern, operation)])
    assert times, f"no operation of an undisturbed build matches {pattern}"
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        # Finished work is not done again, so a later kill may never come.
        order = {"pattern": pattern, "number": chance.randint(1, times if not kills else 3)}
        kills += signalled(bench.fork(output, {"CAMPAIGN_KILL": json.dumps(order)}).wait())
        bench.check_half(output)
    bench.rerun(output)
    return Done(f"before: {moment}", kills)


def kill_at_any_time(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """Killed at a moment that no operation marks: native code encodes or writes."""
    output, kills = str(bench.folder / name), 0
    for _ in range(chance.choice((1, 1, 2))):
        process = bench.fork(output)
        if chance.random() < 0.5:
            _wait_for_more(State(Path(output)).begun, process)
            process.poll(chance.uniform(0, bench.seconds / 10))
            moment = "while a shard is written"
        else:
            process.poll(chance.uniform(0, bench.seconds))
            moment = "at any time"
        process.kill()
        kills += signalled(process.returncode)
        bench.check_half(output)
    bench.rerun(output)
    return Done(moment, kills)


def _wait_for_more(measure: Callable[[], int], process: Forked) -> None:
    before = measure()
    while process.poll(0.001) is None and measure() <= before:
        pass


def kill_at_request(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """Killed when a request to the bucket arrives, which is then lost or done, or once it is done."""
    output, moment = f"{bench.bucket}/{name}", chance.choice(sorted(REQUESTS))
    end = chance.choice(("lost", "done"))
    kills = signalled(_killed_at_request(bench, chance, output, REQUESTS[moment], end))
    bench.check_half(output)
    bench.rerun(output)
    return Done(f"{moment}, {end}", kills)


def _killed_at_request(bench: FaultBench, chance: random.Random, output: str, pattern: str, end: str) -> int:
    matches = re.compile(pattern)
    times = len([request for request in bench.requests if matches.search(request)])
    left = chance.randint(1, times)
    process = None

    def kill(method: str, path: str) -> bool:
        nonlocal left
        left -= bool(matches.search(f"{method} {path}"))
        if left == 0 and process is not None:
            left = -1
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            return end != "lost"
        return True

    with requests_seen(before=kill) if end == "lost" else requests_seen(after=kill):
        process = bench.fork(output)
        return process.wait()


def kill_amid_bucket_faults(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """A tenth of the requests fail; killed at any time, and run again through the same faults."""
    output = f"{bench.bucket}/{name}"
    with fault_proxy(os.environ["STORAGE_EMULATOR_HOST"], seed=chance.randrange(1 << 30)) as proxy:
        address = {"STORAGE_EMULATOR_HOST": proxy.address, "CLOUD_STORAGE_EMULATOR_ENDPOINT": proxy.address}
        process = bench.fork(output, address)
        process.poll(chance.uniform(0, 2 * bench.seconds))
        process.kill()
        bench.check_half(output)
        code = bench.fork(output, address).wait()
        assert code == 0, bench.errors()
        assert proxy.faults
        # Through them as well: objects name the address under which they were written as the one to read them at.
        bench.check(output)
    return Done("at any time, a tenth of the requests fail", signalled(process.returncode))


def kill_with_workers(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """Killed at once with its worker processes."""
    output = str(bench.folder / name)
    with bench.started(output, *_WORKERS) as process:
        measure = _some_progress(chance, State(Path(output)))
        wait_for(measure, process)
        kill_session(process)
    bench.check_half(output)
    bench.rerun(output)
    return Done("driver and workers", signalled(process.returncode))


def kill_driver_alone(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """The driver is killed and its workers live on for a while; it is run again meanwhile."""
    output = str(bench.folder / name)
    with bench.started(output, *_WORKERS) as process:
        measure = _some_progress(chance, State(Path(output)))
        wait_for(measure, process)
        workers = workers_of(process)
        process.kill()
        process.wait()
        bench.rerun(output)
        left = psutil.wait_procs(workers, timeout=WAIT_S)[1]
        assert not left, f"workers outlive their driver: {left}"
    bench.check(output)
    return Done("driver alone", signalled(process.returncode))


def kill_one_worker(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """A worker process is killed: its driver says so, or has not needed it any more."""
    output, kills = str(bench.folder / name), 0
    with bench.started(output, *_WORKERS) as process:
        measure = _some_progress(chance, State(Path(output)))
        wait_for(measure, process)
        workers = workers_of(process)
        with contextlib.suppress(psutil.NoSuchProcess):
            if workers:
                chance.choice(workers).kill()
                kills += 1
        process.wait(WAIT_S)
    if process.returncode:
        check_clean_failure(process.returncode, bench.errors_of(), "a worker process died")
    bench.check_half(output)
    bench.rerun(output)
    return Done("one worker", kills)


def _some_progress(chance: random.Random, state: State) -> Callable[[], bool]:
    measure, more = chance.choice(((state.begun, 1), (state.shards, 3), (state.published, 1), (state.manifests, 1)))
    return lambda: measure() >= more


def largest_file(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """Files cannot grow beyond a limit, as on a disk that is full."""
    output = str(bench.folder / name)
    limit = chance.choice((1, 1_000, 100_000, chance.randrange(1 << 17)))
    # Python would cut its files of bytecode short as well, and leave them so.
    no_bytecode = {"PYTHONDONTWRITEBYTECODE": "1"}
    with bench.started(output, limits=("prlimit", f"--fsize={limit}"), environment=no_bytecode) as process:
        process.wait(WAIT_S)
    check_clean_failure(process.returncode, bench.errors_of(), r"File too large|Disk full|No space")
    bench.check_half(output)
    bench.rerun(output)
    return Done("files limited in size", 0)


@contextlib.contextmanager
def _small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a disk of its own cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _remount(folder: Path, option: str) -> bool:
    return subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], capture_output=True).returncode == 0


def full_disk(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """The disk of the output is full after some kilobytes."""
    kilobytes = chance.randint(16, 3_000)
    with _small_disk(bench.folder / name, kilobytes) as disk:
        output = str(disk / "out")
        with bench.started(output) as process:
            process.wait(WAIT_S)
        check_clean_failure(process.returncode, bench.errors_of(), r"No space left|free some space")
        bench.check_half(output)
        assert _remount(disk, "size=64m")
        bench.rerun(output)
    return Done("disk full", 0)


def read_only(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """The disk cannot be written: from the start, after a kill, or once all is done, when nothing needs to be."""
    with _small_disk(bench.folder / name, 65_536) as disk:
        output = str(disk / "out")
        kills, state = 0, chance.choice(("empty", "half", "finished"))
        if state == "half":
            process = bench.fork(output)
            _wait_for_more(State(Path(output)).shards, process)
            process.kill()
            kills = signalled(process.returncode)
        elif state == "finished":
            bench.rerun(output)
        assert _remount(disk, "ro")
        with bench.started(output) as started:
            started.wait(WAIT_S)
        if state == "finished":
            assert started.returncode == 0, bench.errors_of()
        elif kills or state == "empty":
            check_clean_failure(started.returncode, bench.errors_of(), "Read-only file system")
        bench.check_half(output)
        assert _remount(disk, "rw")
        bench.rerun(output)
    return Done(f"read-only, {state}", kills)


def two_builds(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """Two builds at one output: one does it, the other is refused, unless it comes after."""
    output = f"{chance.choice((str(bench.folder), bench.bucket))}/{name}"
    with bench.started(output, name="first") as first:
        time.sleep(chance.uniform(0, bench.seconds))
        with bench.started(output, name="second") as second:
            codes = {"first": first.wait(WAIT_S), "second": second.wait(WAIT_S)}
    assert 0 in codes.values(), bench.errors_of("first") + bench.errors_of("second")
    for which, code in codes.items():
        if code:
            check_clean_failure(code, bench.errors_of(which), _REFUSED)
    bench.check(output)
    return Done(f"{store_of(output)}, {'one refused' if any(codes.values()) else 'one after the other'}", 0)


def stale_lock(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """A build has the lock and is killed; one that came meanwhile was refused, and the next takes the lock over."""
    output = f"{chance.choice((str(bench.folder), bench.bucket))}/{name}"
    holder = bench.fork(output)
    lock = f"{output}/.broetchen.lock"
    while holder.poll(0.001) is None and not storage.exists(lock):
        pass
    os.kill(holder.pid, signal.SIGSTOP)
    held = holder.returncode is None
    with bench.started(output) as second:
        second.wait(WAIT_S)
    holder.kill()
    if held:
        check_clean_failure(second.returncode, bench.errors_of(), _REFUSED)
    bench.check_half(output)
    bench.rerun(output)
    return Done(f"{store_of(output)}, holder killed", signalled(holder.returncode))


def store_of(output: str) -> str:
    return "bucket" if output.startswith("gs://") else "folder"


def clock_jumps(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """The wall clock jumps by years, before and after a kill, and files are from the past or the future."""
    output = str(bench.folder / name)
    process = bench.fork(output, {"CAMPAIGN_CLOCK": str(chance.random())})
    process.poll(chance.uniform(bench.seconds / 4, bench.seconds))
    process.kill()
    for path in Path(output).rglob("*"):
        moment = time.time() + chance.uniform(-1, 1) * 10 * 365 * 86400
        os.utime(path, (moment, moment))
    bench.check_half(output)
    code = bench.fork(output, {"CAMPAIGN_CLOCK": str(chance.random())}).wait()
    assert code == 0, bench.errors()
    bench.check(output)
    return Done("clock jumps by years", signalled(process.returncode))
