"""Scratch files lie where nobody else can look, and those of a killed run go with the next one."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import run_command
from tests.support.corpora import SAMPLES
from transforms.errors import BroetchenError
from transforms.files import scratch, storage
from transforms.files.scratch import remove_run_folders, run_folder, sweep, temporary_folder
from transforms.files.staged import scratch_folder

SOMEBODY = 54_321
# A run with a fork, which both say where they work, and wait for the end of their standard input.
RUN = """
import os, sys
from pathlib import Path
from transforms.files.scratch import remove_run_folders, run_folder
Path(run_folder(), "precious").write_text("text")
if "fork" in sys.argv and not os.fork():
    os.write(1, f"{run_folder()}\\n".encode())
    sys.stdin.read()
    os._exit(0)
if "fork that ends" in sys.argv:
    if not os.fork():
        remove_run_folders()
        sys.exit()
    os.wait()
os.write(1, f"{run_folder()}\\n".encode())
if "end" not in sys.argv:
    sys.stdin.read()
"""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files, for this process and those that it starts."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[Path]]]:
    """A run, and where it and its fork work."""
    command = [sys.executable, "-c", RUN, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, [Path(process.stdout.readline().strip()) for _ in range(1 + ("fork" in arguments))]
        process.kill()


def test_a_runs_folder_is_private_and_one(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0)
    try:
        folder = Path(run_folder())
    finally:
        os.umask(before)
    assert folder.parent == base
    assert folder.name.startswith(f"broetchen-{os.geteuid()}-")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert run_folder() == str(folder)
    with temporary_folder("count") as one, temporary_folder("count") as other:
        assert Path(one).parent == Path(other).parent == folder
        assert one != other
        assert stat.S_IMODE(os.stat(one).st_mode) == 0o700
    assert list(folder.iterdir()) == []
    elsewhere = base / "elsewhere"
    elsewhere.mkdir()
    assert Path(run_folder(str(elsewhere))).parent == elsewhere
    remove_run_folders()
    assert list(base.rglob("*")) == [elsewhere]


def test_it_is_where_remote_files_are_built_and_copied_to(base: Path, gcs_prefix: str) -> None:
    assert scratch_folder(f"{gcs_prefix}/a") == run_folder()
    storage.write_bytes(f"{gcs_prefix}/a", b"text")
    with storage.local_copy(f"{gcs_prefix}/a") as copy:
        assert Path(copy).is_relative_to(run_folder())
    assert list(Path(run_folder()).iterdir()) == []
    assert list(base.iterdir()) == [Path(run_folder())]


def test_where_it_was_deleted_or_exchanged_there_is_a_new_one(base: Path, tmp_path: Path) -> None:
    first = Path(run_folder())
    first.rmdir()
    second = Path(run_folder())
    assert second != first
    assert second.is_dir()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    second.rmdir()
    second.symlink_to(theirs)
    assert run_folder() not in (str(first), str(second))
    second.unlink()
    Path(run_folder()).chmod(0o755)
    assert stat.S_IMODE(os.stat(run_folder()).st_mode) == 0o700


def test_where_none_can_be_made_the_message_says_so(base: Path) -> None:
    with pytest.raises(BroetchenError, match=r"absent: no folder for temporary .*No such file.*; set TMPDIR"):
        run_folder(str(base / "absent"))


@pytest.mark.slow
def test_a_run_that_ends_leaves_nothing(base: Path) -> None:
    with started("end") as (process, [folder]):
        process.wait()
        assert not folder.exists()


@pytest.mark.slow
def test_what_a_killed_run_has_left_goes_with_the_next(base: Path) -> None:
    with started() as (process, [folder]):
        assert sweep(str(base)) == []
        assert (folder / "precious").exists()
        process.kill()
        process.wait()
        assert (folder / "precious").exists()
        assert Path(run_folder()) != folder
        assert not folder.exists()
        assert list(base.iterdir()) == [Path(run_folder())]


@pytest.mark.slow
def test_a_fork_works_in_the_same_folder_and_keeps_it_as_long_as_it_lives(base: Path) -> None:
    with started("fork") as (process, [folder, same]):
        assert folder == same
        process.kill()
        process.wait()
        assert sweep(str(base)) == []
        assert (folder / "precious").exists()
        assert process.stdin is not None
        process.stdin.close()
        assert process.stdout is not None
        assert process.stdout.read() == ""  # until the fork has ended
        assert sweep(str(base)) == [str(folder)]


@pytest.mark.slow
def test_a_fork_that_ends_takes_nothing_along(base: Path) -> None:
    with started("fork that ends") as (_, [folder]):
        assert (folder / "precious").exists()


def test_links_and_what_others_may_read_are_not_swept(base: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    (theirs / "precious").write_text("text")
    prefix = scratch._prefix()
    (base / f"{prefix}link").symlink_to(theirs)
    (base / f"{prefix}file").write_text("text")
    (base / f"{prefix}open").mkdir(mode=0o755)
    (base / "broetchen-other").mkdir(mode=0o700)
    (base / f"{prefix}left").mkdir(mode=0o700)
    (base / f"{prefix}left" / "link").symlink_to(theirs)
    before = {path for path in base.iterdir() if not path.name.endswith("left")}
    assert sweep(str(base)) == [str(base / f"{prefix}left")]
    assert set(base.iterdir()) == before
    assert (theirs / "precious").read_text() == "text"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders to others")
def test_another_users_folder_is_not_swept(base: Path) -> None:
    theirs = base / f"{scratch._prefix()}theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, SOMEBODY, -1)
    assert sweep(str(base)) == []
    assert theirs.is_dir()


@pytest.mark.slow
def test_a_command_works_there_and_sweeps(base: Path) -> None:
    with started() as (process, [folder]):
        process.kill()
        process.wait()
        done = run_command("plan", SAMPLES.parent / "mix_configs" / "demo.yaml", "--dataset", "fineweb_english")
        assert done.returncode == 0, done.stderr
        assert not folder.exists()
        assert list(base.iterdir()) == []
