"""One build at an output: another is refused and told the owner, and the lock of a dead one is taken over."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from apache_beam.io.localfilesystem import LocalFileSystem

from beam_pipelines.jobs.build import demo_config
from tests.support.command import run_command
from tests.support.corpora import SAMPLES
from tests.support.services.gcs_emulator import Handler
from transforms.coders import to_json
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.locks.gcs import Timing
from transforms.locks.output import LOCK_FILE, check_token, hold_output
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
# Works on, where nobody stops it.
WORKER = """
import sys, threading
from transforms.locks.gcs import Timing
from transforms.locks.output import hold_output
with hold_output(sys.argv[1], Timing(renew_s=0.02, stale_s=30, look_s=1)):
    print("held", flush=True)
    threading.Event().wait(60)
print("worked to its end")
"""
# The command, which looks after its lock more often.
COMMAND = """
import transforms.locks.output
from beam_pipelines import cli
from transforms.locks.gcs import Timing
transforms.locks.output.Timing = lambda: Timing(renew_s=0.02, stale_s=30, look_s=1)
cli.main()
"""
BUSY = Timing(renew_s=0.005, stale_s=30, look_s=0.02)


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
    return [path for path, _ in list_files(output)]


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
        line = result.stderr.splitlines()[-1]  # after warnings of a budget that is as small
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


def owner_in(folder: Path) -> LockOwner:
    owner = read_owner((folder / LOCK_FILE).read_bytes())
    assert owner is not None
    return owner


def is_held(path: str | Path) -> bool:
    """Whether somebody has a file locked, as the kernel tells other processes."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def opened(folder: Path) -> int:
    """How many descriptors of this process are those of lock files there, deleted ones too."""
    found = 0
    for descriptor in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/dev/fd/{descriptor}").startswith(str(folder / LOCK_FILE))
    return found


@pytest.fixture
def before_flock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Has something happen between the opening of the lock file and the next `flock`, whose error it may raise."""
    real, acts = fcntl.flock, list[Callable[[], None]]()

    def flock(descriptor: int, how: int) -> None:
        if acts:
            acts.pop(0)()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    return acts.append


def test_the_lock_of_a_folder_names_this_process_and_is_gone_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "out"
    with hold_output(str(folder)):
        assert [path.name for path in folder.iterdir()] == [".broetchen.lock"]
        owner = owner_in(folder)
        assert (owner.process, owner.host) == (os.getpid(), socket.gethostname())
        assert is_held(folder / LOCK_FILE)
        assert opened(folder) == 1
    assert list(folder.iterdir()) == []
    assert opened(folder) == 0


def test_a_second_build_is_told_who_the_first_is(tmp_path: Path) -> None:
    with hold_output(str(tmp_path)):
        first = (tmp_path / LOCK_FILE).read_bytes()
        with pytest.raises(BroetchenError) as error, hold_output(str(tmp_path)):
            pytest.fail("two hold it")
        assert str(error.value) == (
            f"{tmp_path}: another build is at work there ({owner_in(tmp_path)}); wait until it is done or stop it, or "
            "choose another --output"
        )
        assert (tmp_path / LOCK_FILE).read_bytes() == first
        assert is_held(tmp_path / LOCK_FILE)
        assert opened(tmp_path) == 1


def test_a_first_build_that_has_not_said_who_it_is_has_the_lock_nevertheless(tmp_path: Path) -> None:
    with (tmp_path / LOCK_FILE).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with (
            pytest.raises(BroetchenError, match=r"at work there \(it does not say which process\); wait"),
            hold_output(str(tmp_path)),
        ):
            pytest.fail("two hold it")
        assert (tmp_path / LOCK_FILE).exists()


def test_what_a_killed_build_has_left_of_its_lock_is_written_over(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("x" * 10_000)
    with hold_output(str(tmp_path)):
        assert owner_in(tmp_path).process == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_on_a_full_disk_the_lock_holds_and_names_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pwrite(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with hold_output(str(tmp_path)):
        left_behind = (tmp_path / LOCK_FILE).read_bytes()
    (tmp_path / LOCK_FILE).write_bytes(left_behind)
    monkeypatch.setattr(os, "pwrite", pwrite)
    with hold_output(str(tmp_path)):
        assert (tmp_path / LOCK_FILE).read_bytes() == b""
        with pytest.raises(BroetchenError, match="it does not say which process"), hold_output(str(tmp_path)):
            pytest.fail("two hold it")
    assert list(tmp_path.iterdir()) == []


def test_all_who_may_write_there_may_take_the_lock(tmp_path: Path) -> None:
    """As colleagues with a folder of their group: the umask decides, and nobody may run it."""
    before = os.umask(0o002)
    try:
        with hold_output(str(tmp_path)):
            assert (tmp_path / LOCK_FILE).stat().st_mode & 0o777 == 0o664
    finally:
        os.umask(before)


def test_the_lock_file_goes_while_the_lock_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards it might be another build's, and a third would make a new one."""
    real, held = os.unlink, []

    def unlink(path: str) -> None:
        held.append((path, is_held(path)))
        real(path)

    monkeypatch.setattr(os, "unlink", unlink)
    with hold_output(str(tmp_path)):
        pass
    assert held == [(str(tmp_path / LOCK_FILE), True)]


def test_a_lock_file_that_somebody_deletes_is_no_error_at_the_end(tmp_path: Path) -> None:
    with hold_output(str(tmp_path)):
        (tmp_path / LOCK_FILE).unlink()
    assert opened(tmp_path) == 0


@pytest.mark.parametrize("replaced", [False, True])
def test_a_lock_file_that_goes_before_it_is_locked_is_none(
    tmp_path: Path, before_flock: Callable[[Callable[[], None]], None], replaced: bool
) -> None:
    """The build that held it has ended, and deleted it; the next one locks another file, of the same name."""
    (tmp_path / LOCK_FILE).write_text("of a build that ends")

    def end() -> None:
        (tmp_path / LOCK_FILE).unlink()
        if replaced:
            (tmp_path / LOCK_FILE).write_text("of the next build")

    before_flock(end)
    with hold_output(str(tmp_path)):
        assert owner_in(tmp_path).process == os.getpid()
        assert is_held(tmp_path / LOCK_FILE)
        assert opened(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_next_build_may_be_quicker(tmp_path: Path, before_flock: Callable[[Callable[[], None]], None]) -> None:
    with contextlib.ExitStack() as next_build:
        (tmp_path / LOCK_FILE).write_text("of a build that ends")

        def end() -> None:
            (tmp_path / LOCK_FILE).unlink()
            next_build.enter_context(hold_output(str(tmp_path)))

        before_flock(end)
        with pytest.raises(BroetchenError, match=refused(f"process {os.getpid()} on ")), hold_output(str(tmp_path)):
            pytest.fail("two hold it")
        assert is_held(tmp_path / LOCK_FILE)
        assert opened(tmp_path) == 1


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
@pytest.mark.parametrize("gone", [False, True])
def test_where_a_filesystem_has_no_locks_a_build_warns_and_works(
    tmp_path: Path,
    before_flock: Callable[[Callable[[], None]], None],
    caplog: pytest.LogCaptureFixture,
    number: int,
    gone: bool,
) -> None:
    def refuse() -> None:
        if gone:
            (tmp_path / LOCK_FILE).unlink()  # by another build that has come to the same
        raise OSError(number, os.strerror(number))

    before_flock(refuse)
    with hold_output(str(tmp_path)):
        assert list(tmp_path.iterdir()) == []
        assert opened(tmp_path) == 0
        (tmp_path / "shard").write_text("of the build")
    assert [path.name for path in tmp_path.iterdir()] == ["shard"]
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("transforms.locks.output", "WARNING")
    assert record.getMessage() == f"{tmp_path}: its filesystem has no locks; make sure that only one build writes there"


def test_another_error_of_a_lock_comes_out(
    tmp_path: Path, before_flock: Callable[[Callable[[], None]], None], caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, "Input/output error")

    before_flock(fail)
    with pytest.raises(OSError, match="Input/output error"), hold_output(str(tmp_path)):
        pytest.fail("held")
    assert opened(tmp_path) == 0
    assert caplog.records == []


def test_where_nothing_can_be_written_there_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "program").write_text("")
    (tmp_path / "program").chmod(0o755)
    for path in ("file", "file/out", "program"):
        with hold_output(str(tmp_path / path)):
            assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "program"]


def test_in_a_folder_that_may_only_be_read_there_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All who see a build that is finished can confirm it. Root may write anywhere, so here it is told that not."""
    real = os.open

    def open_to_read(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", open_to_read)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).exists() and not mode & os.W_OK)
    with hold_output(str(tmp_path)):
        assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).mkdir()
    with pytest.raises(BroetchenError) as error, hold_output(str(tmp_path)):
        pytest.fail("held")
    assert str(error.value) == (
        f"{tmp_path / LOCK_FILE}: cannot be written (Is a directory); this is a folder; name a file"
    )


class OtherFilesystem(LocalFileSystem):
    """One of Beam's that is neither this machine's nor a bucket, such as HDFS."""

    @classmethod
    def scheme(cls) -> str:
        return "other"


def test_on_other_filesystems_there_is_no_lock() -> None:
    done = []
    with hold_output("other://host/out"), hold_output("other://host/out"):
        done.append("the work")
    assert done == ["the work"]


def test_a_scheme_that_beam_does_not_know_is_bad_usage() -> None:
    with pytest.raises(UsageError, match="no filesystem for ftp"), hold_output("ftp://host/out"):
        pytest.fail("held")


@pytest.fixture
def lock(gcs_prefix: str) -> str:
    return f"{gcs_prefix}/{LOCK_FILE}"


@pytest.mark.parametrize("then", ["deleted", "another's"])
def test_who_has_lost_the_lock_is_stopped(lock: str, gcs_prefix: str, then: str) -> None:
    def work() -> None:
        with hold_output(gcs_prefix, BUSY):
            if then == "deleted":
                storage.delete([lock])
            else:
                storage.write_bytes(lock, b"another's")
            threading.Event().wait(10)
            pytest.fail("still at work")

    with pytest.raises(BroetchenError) as error:
        work()
    assert str(error.value) == (
        f"{gcs_prefix}: another build has taken it over, since this one had not answered for too long, as when its "
        "machine was asleep; wait for the other build, or stop it and run this again"
    )
    assert storage.exists(lock) is (then == "another's")


def test_a_thread_that_has_lost_the_lock_is_told_at_the_end(lock: str, gcs_prefix: str) -> None:
    def work() -> None:
        with hold_output(gcs_prefix, BUSY):
            storage.delete([lock])
            for thread in threading.enumerate():
                if thread.name == "lock":
                    thread.join(10)

    with ThreadPoolExecutor(1) as pool, pytest.raises(BroetchenError, match="another build has taken it over"):
        pool.submit(work).result()


@contextlib.contextmanager
def in_background(program: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A Python program as `command &` in a shell script starts it: Ctrl-C is not for it, so it ignores SIGINT."""
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_process_in_the_background_that_has_lost_the_lock_is_stopped(lock: str, gcs_prefix: str) -> None:
    with in_background(WORKER, gcs_prefix) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        storage.write_bytes(lock, b"another's")
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert f"BroetchenError: {gcs_prefix}: another build has taken it over" in errors.splitlines()[-1]
    assert storage.read_bytes(lock) == b"another's"


@pytest.mark.slow
def test_a_build_in_the_background_that_has_lost_the_lock_is_stopped(
    lock: str, gcs_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work = threading.Event()

    def look(method: str, path: str) -> bool:
        if method != "GET" and "shard-" in path:
            at_work.set()
        return True

    monkeypatch.setattr(Handler, "before_request", staticmethod(look))
    with in_background(COMMAND, "build", DEMO, "--output", gcs_prefix) as process:
        assert at_work.wait(120)
        storage.write_bytes(lock, b"another's")
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, output) == (1, "")
    told = [line for line in errors.splitlines() if line.startswith("broetchen: ")]
    assert len(told) == 1
    assert told[0].startswith(f"broetchen: {gcs_prefix}: another build has taken it over")
    assert storage.read_bytes(lock) == b"another's"
    names = [path for path in left(gcs_prefix) if path.endswith("/manifest.json")]
    assert len(names) < len(demo_config().datasets), "it has worked on to its end"


def test_a_bucket_that_is_not_there_is_named(gcs_bucket: str) -> None:
    there_is_none = r"cannot be written .*; check the path, and that the bucket exists"
    with pytest.raises(BroetchenError, match=there_is_none), hold_output(f"{gcs_bucket}-not/out"):
        pytest.fail("held")


def test_the_demo_leaves_no_lock(tmp_path: Path) -> None:
    from beam_pipelines.jobs.build import build

    build(demo_config(), str(tmp_path), datasets=["fineweb_english"], quiet=True)
    assert not (tmp_path / LOCK_FILE).exists()


def test_who_holds_the_lock_finds_its_token_there(output: str) -> None:
    with hold_output(output) as held:
        assert held.token
        check_token(output, held.token)


@pytest.mark.parametrize("then", ["deleted", "another's", "damaged"])
def test_who_has_lost_the_lock_does_not_find_its_token_there(output: str, then: str) -> None:
    path = storage.join(output, LOCK_FILE)
    with hold_output(output) as held:
        assert held.token
        token = held.token
    if then != "deleted":
        storage.write_bytes(path, to_json(this_process()).encode() if then == "another's" else b"{")
    with pytest.raises(BroetchenError, match="another build has taken over there"):
        check_token(output, token)


def test_on_other_filesystems_there_is_no_token_and_no_check() -> None:
    with hold_output("other://host/out") as held:
        assert held.token is None
    check_token("other://host/out", "any")
