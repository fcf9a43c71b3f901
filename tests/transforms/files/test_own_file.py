"""Only a regular file of one's own, with one name, is opened to be written; all others stay as they are."""

from __future__ import annotations

import errno
import os
import pwd
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from transforms.errors import BroetchenError
from transforms.files.own_file import check_own, is_at, open_own

SOMEBODY = 54_321
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")


def write(path: Path, data: bytes) -> None:
    with open(open_own(path), "r+b") as file:
        file.write(data)


def test_a_file_is_made_by_the_umask_and_opened_again_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        write(path, b"12345")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    write(path, b"ab")
    assert path.read_bytes() == b"ab345"
    with open(open_own(path, flags=os.O_APPEND), "ab") as file:
        file.write(b"6")
        assert os.get_blocking(file.fileno())
        assert not os.get_inheritable(file.fileno())
    assert path.read_bytes() == b"ab3456"


def test_none_is_made_where_none_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_own(tmp_path / "file", make=False)
    with pytest.raises(FileNotFoundError):
        open_own(tmp_path / "absent" / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing"])
def test_a_link_is_not_followed(tmp_path: Path, there: bool) -> None:
    victim, path = tmp_path / "victim", tmp_path / "file"
    if there:
        victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(BroetchenError, match=r"file: is a symbolic link, and nothing is written through it; delete it"):
        open_own(path)
    assert path.is_symlink()
    assert (victim.read_text() if there else victim.exists()) == ("precious" if there else False)


def test_a_second_name_of_a_file_is_not_written(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_text("precious")
    path.hardlink_to(victim)
    with pytest.raises(BroetchenError, match=r"file: is a file with 2 names \(hard links\)"):
        open_own(path)
    assert victim.read_text() == "precious"


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, make_socket], ids=["fifo", "socket"])
def test_what_is_no_regular_file_is_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    make(Path("file"))
    with pytest.raises(BroetchenError, match="file: is no regular file, and nothing is written through it"):
        open_own("file")


def test_a_folder_is_the_error_that_it_is(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        open_own(tmp_path)


@AS_ROOT
@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_another_users_file_is_left_alone_and_its_owner_named(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_text("theirs")
    path.chmod(mode)
    for uid, name in ((SOMEBODY, str(SOMEBODY)), (pwd.getpwnam("nobody").pw_uid, "nobody")):
        os.chown(path, uid, -1)
        with pytest.raises(BroetchenError, match=rf"file: is a file of user {name}, and is neither written nor del"):
            open_own(path)
        with pytest.raises(BroetchenError, match=rf"file: is a file of user {name}, .*; ask them to delete it"):
            check_own(str(path))
    assert path.read_text() == "theirs"


def test_a_file_counts_by_its_owner_for_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write(path, b"ours")
    check_own(str(path))
    check_own(str(tmp_path / "absent"))
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    with pytest.raises(BroetchenError, match=r"is a file of user .*; wait for them"):
        open_own(path, advice="wait for them")
    with pytest.raises(BroetchenError, match="is a file of user"):
        check_own(str(path))
    # One that was made here is ours, even where the filesystem calls all files somebody's.
    os.close(open_own(tmp_path / "new"))


def test_a_file_without_the_permission_is_the_error_that_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "file", os.open
    path.write_text("ours")

    def refuse(name: str, flags: int, mode: int = 0o777) -> int:
        if not flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(name, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError):
        open_own(path)


def test_a_file_that_was_replaced_is_no_longer_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with open(open_own(path), "rb") as file:
        assert is_at(file.fileno(), str(path))
        path.rename(tmp_path / "other")
        assert not is_at(file.fileno(), str(path))
        path.symlink_to(tmp_path / "other")
        assert not is_at(file.fileno(), str(path))
