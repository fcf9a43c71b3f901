"""One build at an output: another is refused and told by whom, and what a dead one has left is taken over."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from beam_pipelines.jobs.build import demo_config
from tests.support.command import run_command
from tests.support.corpora import SAMPLES
from tests.support.services.fault_proxy import fault_proxy
from transforms.coders import to_json
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.locks.gcs import LockHeldError, Timing, hold_object
from transforms.locks.output import LOCK_FILE, hold_output
from transforms.locks.owner import LockOwner, read_owner, this_process

DEMO = SAMPLES.parent / "mix_configs" / "demo.yaml"
HOLDER = """
import sys
from transforms.locks.output import hold_output
with hold_output(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
# Takes the lock many times; while it has it, nobody else may have made the file.
CONTENDER = """
import os, sys
from transforms.errors import BroetchenError
from transforms.locks.output import hold_output
folder, mark = sys.argv[1:]
held = 0
while held < 60:
    try:
        with hold_output(folder):
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            os.unlink(mark)
            held += 1
    except BroetchenError:
        pass
"""
QUICK, PATIENT = Timing(renew_s=0.02, stale_s=0.2, look_s=0.02), Timing(renew_s=0.02, stale_s=30, look_s=0.02)


@pytest.fixture(params=["folder", "bucket"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "folder" else request.getfixturevalue("gcs_prefix")


@pytest.fixture
def holder(output: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock until its standard input ends."""
    command = [sys.executable, "-c", HOLDER, output]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def left(output: str) -> list[str]:
    return [path for path, _ in storage.list_files(storage.join(output, "**"))]


def elsewhere() -> LockOwner:
    """A process of which this machine cannot tell whether it runs."""
    return dataclasses.replace(this_process(), host="another-host", system="another boot")


def refused(owner: str) -> str:
    return rf"another build is at work there \({owner}.*, since 20.* UTC\); wait until .* or choose another --output"


@pytest.mark.slow
def test_the_second_is_refused_until_the_first_is_done(output: str, holder: subprocess.Popen[bytes]) -> None:
    with pytest.raises(BroetchenError, match=refused(f"process {holder.pid} on ")), hold_output(output):
        pytest.fail("two hold it")
    holder.communicate(b"")
    assert left(output) == []
    with hold_output(output):
        assert left(output) == [storage.join(output, LOCK_FILE)]
    assert left(output) == []


@pytest.mark.slow
def test_the_lock_of_a_killed_process_is_taken_over_at_once(output: str, holder: subprocess.Popen[bytes]) -> None:
    holder.kill()
    holder.wait()
    assert left(output) == [storage.join(output, LOCK_FILE)]
    with hold_output(output):
        owner = read_owner(storage.read_bytes(storage.join(output, LOCK_FILE)))
        assert owner is not None
        assert owner.process == os.getpid()
    assert left(output) == []


@pytest.mark.slow
def test_a_stopped_process_still_holds_it(output: str, holder: subprocess.Popen[bytes]) -> None:
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(BroetchenError, match=refused(f"process {holder.pid} on ")), hold_output(output):
        pytest.fail("two hold it")


def test_an_error_in_the_block_comes_out_and_gives_the_lock_back(output: str) -> None:
    with pytest.raises(ValueError, match="of the block"), hold_output(output):
        raise ValueError("of the block")
    assert left(output) == []


def test_a_build_is_refused_with_one_line(output: str) -> None:
    with hold_output(output):
        result = run_command("build", DEMO, "--output", output, "--set", "total_tokens=1000")
        assert result.returncode == 1
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"broetchen: {output}: another build is at work there (process {os.getpid()} on ")
        assert left(output) == [storage.join(output, LOCK_FILE)]


@pytest.mark.slow
def test_processes_that_contend_hold_it_one_at_a_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CONTENDER, str(tmp_path / "out"), str(tmp_path / "mark")]
    processes = [subprocess.Popen(command) for _ in range(3)]
    try:
        assert [process.wait() for process in processes] == [0, 0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert left(str(tmp_path / "out")) == []


def test_where_nothing_can_be_written_there_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with hold_output(str(tmp_path / "file" / "out")), hold_output(str(tmp_path / "file")):
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_lock_that_is_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).mkdir()
    with (
        pytest.raises(BroetchenError, match=r"\.lock: cannot be written \(Is a directory\)"),
        hold_output(str(tmp_path)),
    ):
        pytest.fail("held")


def test_a_scheme_that_beam_does_not_know_is_bad_usage() -> None:
    with pytest.raises(UsageError, match="no filesystem for ftp"), hold_output("ftp://host/out"):
        pytest.fail("held")


OWNER = """
from transforms.coders import to_json
from transforms.locks.owner import this_process
print(to_json(this_process()))
"""


@pytest.mark.slow
def test_who_runs_is_told_only_where_it_can_be() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        ended = read_owner(process.stdout.read())
        assert ended is not None
        assert ended.process == process.pid
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert ended.runs() is False  # though its number is still taken, until it is waited for
    assert ended.runs() is False
    assert this_process().runs() is True
    assert dataclasses.replace(this_process(), started="1").runs() is False  # the number is another's by now
    assert elsewhere().runs() is None
    assert dataclasses.replace(this_process(), system="").runs() is None
    assert read_owner(b"{}") is None


@pytest.fixture
def lock(gcs_prefix: str) -> str:
    return f"{gcs_prefix}/{LOCK_FILE}"


@pytest.fixture
def not_lost() -> Iterator[Callable[[], None]]:
    lost: list[bool] = []
    yield lambda: lost.append(True)
    assert not lost


@pytest.mark.parametrize("content", [to_json(elsewhere()).encode(), b"half of"])
def test_a_lock_that_nobody_renews_is_taken_over(
    lock: str, content: bytes, caplog: pytest.LogCaptureFixture, not_lost: Callable[[], None]
) -> None:
    storage.write_bytes(lock, content)
    caplog.set_level("INFO")
    with hold_object(lock, this_process(), QUICK, not_lost):
        assert storage.read_bytes(lock) != content
    assert not storage.exists(lock)
    assert "waiting up to 0 s to see whether" in caplog.text


def test_a_lock_that_is_renewed_is_not(lock: str, not_lost: Callable[[], None]) -> None:
    owner = elsewhere()
    with (
        hold_object(lock, owner, PATIENT, not_lost),
        pytest.raises(LockHeldError) as error,
        hold_object(lock, this_process(), PATIENT, not_lost),
    ):
        pytest.fail("two hold it")
    assert error.value.owner == owner


def test_of_several_that_take_over_one_wins(lock: str, not_lost: Callable[[], None]) -> None:
    storage.write_bytes(lock, to_json(elsewhere()).encode())
    all_have_tried = threading.Barrier(4, timeout=60)

    def take(_: int) -> str:
        try:
            with hold_object(lock, this_process(), QUICK, not_lost):
                all_have_tried.wait()
                return "held"
        except LockHeldError:
            all_have_tried.wait()
            return "refused"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(take, range(4))) == ["held", "refused", "refused", "refused"]
    assert not storage.exists(lock)


def test_a_lock_that_this_process_made_without_hearing_of_it_is_its_own(
    lock: str, not_lost: Callable[[], None]
) -> None:
    owner = this_process()
    storage.write_bytes(lock, to_json(owner).encode())
    with hold_object(lock, owner, PATIENT, not_lost):
        assert storage.exists(lock)
    assert not storage.exists(lock)


@pytest.mark.parametrize("then", ["deleted", "another's"])
def test_who_has_lost_the_lock_is_stopped(lock: str, gcs_prefix: str, then: str) -> None:
    def work() -> None:
        with hold_output(gcs_prefix, QUICK):
            if then == "deleted":
                storage.delete([lock])
            else:
                storage.write_bytes(lock, b"another's")
            threading.Event().wait(60)
            pytest.fail("still at work")

    with pytest.raises(BroetchenError, match="another build has taken it over"):
        work()
    assert storage.exists(lock) is (then == "another's")


def test_a_thread_that_has_lost_the_lock_is_told_at_the_end(lock: str, gcs_prefix: str) -> None:
    def work() -> None:
        with hold_output(gcs_prefix, QUICK):
            storage.delete([lock])
            for thread in threading.enumerate():
                if thread.name == "lock":
                    thread.join()

    with ThreadPoolExecutor(1) as pool, pytest.raises(BroetchenError, match="another build has taken it over"):
        pool.submit(work).result()


@pytest.mark.slow
def test_it_is_held_through_faults(
    gcs_prefix: str, monkeypatch: pytest.MonkeyPatch, not_lost: Callable[[], None]
) -> None:
    lock = f"{gcs_prefix}/{LOCK_FILE}"
    with fault_proxy(os.environ["STORAGE_EMULATOR_HOST"], seed=3, rate=0.3) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.address)
        for _ in range(2):
            with hold_object(lock, this_process(), PATIENT, not_lost):
                seen = proxy.requests
                while proxy.requests < seen + 8:
                    threading.Event().wait(0.01)
        assert proxy.faults
    monkeypatch.undo()
    assert not storage.exists(lock)


def test_a_bucket_that_is_not_there_is_named(gcs_bucket: str) -> None:
    there_is_none = r"cannot be written .*; check the path, and that the bucket exists"
    with pytest.raises(BroetchenError, match=there_is_none), hold_output(f"{gcs_bucket}-not/out"):
        pytest.fail("held")


def test_the_demo_leaves_no_lock(tmp_path: Path) -> None:
    from beam_pipelines.jobs.build import build

    build(demo_config(), str(tmp_path), datasets=["fineweb_english"], quiet=True)
    assert not (tmp_path / LOCK_FILE).exists()
