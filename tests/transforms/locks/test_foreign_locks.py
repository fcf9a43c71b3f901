"""Files that others put in the place of a lock, in a folder that they may write, are neither written nor deleted."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from transforms.errors import BroetchenError
from transforms.locks.output import LOCK_FILE, hold_output

SOMEBODY = 54_321
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others, and becomes them")
HOLD = """
import os, sys
from transforms.errors import BroetchenError
from transforms.locks.output import hold_output
os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))
try:
    with hold_output(sys.argv[1]):
        print("held")
except BroetchenError as error:
    print(error)
"""


def refused(folder: Path) -> str:
    with pytest.raises(BroetchenError) as error, hold_output(str(folder)):
        pytest.fail("held")
    return str(error.value)


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "out"
    folder.mkdir()
    (folder / LOCK_FILE).symlink_to(victim)
    for content in (None, "precious"):
        if content is not None:
            victim.write_text(content)
        assert refused(folder) == (
            f"{folder / LOCK_FILE}: is a symbolic link, and nothing is written through it; delete it, or choose "
            "another folder"
        )
        assert (victim.read_text() if victim.exists() else None) == content
    assert (folder / LOCK_FILE).is_symlink()


def test_a_hard_link_in_its_place_is_not_truncated(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "out"
    folder.mkdir()
    victim.write_text("precious")
    (folder / LOCK_FILE).hardlink_to(victim)
    assert "is a file with 2 names (hard links), so that another would be written with it" in refused(folder)
    assert victim.read_text() == "precious"


def test_a_fifo_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LOCK_FILE)
    assert "is no regular file" in refused(tmp_path)


@AS_ROOT
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666])
@pytest.mark.parametrize("held", [False, True])
def test_another_users_lock_stays_and_the_message_says_whose_it_is(tmp_path: Path, mode: int, held: bool) -> None:
    path = tmp_path / LOCK_FILE
    path.write_text("theirs")
    path.chmod(mode)
    os.chown(path, SOMEBODY, -1)
    with path.open("rb") as file:
        if held:
            fcntl.flock(file, fcntl.LOCK_EX)
        assert refused(tmp_path) == (
            f"{path}: is a file of user {SOMEBODY}, and is neither written nor deleted; wait until their build there "
            "is done, or ask them to delete it, or choose another --output"
        )
    assert path.read_text() == "theirs"


@AS_ROOT
@pytest.mark.slow
@pytest.mark.parametrize("mode", [0o644, 0o666])
def test_another_user_is_told_so_of_ours(mode: int) -> None:
    """The folder is for all, as pytest's own are not; in one case the lock itself is for all as well."""
    with tempfile.TemporaryDirectory() as folder, hold_output(folder):
        lock = Path(folder, LOCK_FILE)
        Path(folder).chmod(0o1777)
        lock.chmod(mode)
        content = lock.read_bytes()
        done = subprocess.run(
            [sys.executable, "-c", HOLD, folder, str(SOMEBODY)], capture_output=True, text=True, check=True
        )
        assert f"{lock}: is a file of user root, and is neither written nor deleted; wait" in done.stdout
        assert lock.read_bytes() == content


def test_what_others_put_there_meanwhile_is_not_deleted(tmp_path: Path) -> None:
    with hold_output(str(tmp_path)):
        (tmp_path / LOCK_FILE).unlink()
        (tmp_path / LOCK_FILE).write_text("theirs")
    assert (tmp_path / LOCK_FILE).read_text() == "theirs"
