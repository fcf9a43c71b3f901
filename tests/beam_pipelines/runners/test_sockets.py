"""The folder of a run's sockets: its place, and the users who can reach it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_pipelines.runners import sockets
from beam_pipelines.runners.sockets import LONGEST_PATH, NoWorkersError, socket_folder

NAMES = ("control", "data")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder of ours, and no other to be found in the environment."""
    folder = Path(tempfile.mkdtemp(prefix="b", dir="/tmp")).resolve()
    use(monkeypatch, folder)
    yield folder
    shutil.rmtree(folder)


def use(monkeypatch: pytest.MonkeyPatch, temporary: Path, runtime: Path | None = None) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime or ""))


def test_it_lies_among_temporary_files_and_is_gone_afterwards(place: Path) -> None:
    with socket_folder(NAMES) as folder:
        assert folder.is_relative_to(place)
        assert [path.stat().st_mode & 0o777 for path in (folder, folder.parent)] == [0o700, 0o700]
        assert folder.stat().st_uid == os.geteuid()
        assert list(folder.iterdir()) == []
        (folder / "control").touch()
    assert not folder.exists()


def test_two_of_one_process_are_apart(place: Path) -> None:
    with socket_folder(NAMES) as one, socket_folder(NAMES) as other:
        assert one != other


def test_a_path_that_is_too_long_is_not_taken(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long, runtime = place / ("ä" * (LONGEST_PATH // 2 - len(str(place)))), place / "run"
    long.mkdir()
    runtime.mkdir()
    use(monkeypatch, long, runtime)
    with socket_folder(NAMES) as folder:
        assert folder.is_relative_to(runtime)
        assert len(os.fsencode(folder / "control")) <= LONGEST_PATH
    assert list(long.glob("*/*")) == []


def test_the_longest_path_is_that_of_the_system(place: Path) -> None:
    path = os.fsencode(place) + b"/"
    with socket.socket(socket.AF_UNIX) as fits, socket.socket(socket.AF_UNIX) as too_long:
        fits.bind(path.ljust(LONGEST_PATH, b"s"))
        # Python has no room for the byte that ends it on Linux, where the system has one more.
        with pytest.raises(OSError, match="too long"):
            too_long.bind(path.ljust(LONGEST_PATH + 2, b"s"))


def test_a_folder_that_others_could_exchange_is_not_taken(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = place / "shared"
    (shared / "ours").mkdir(parents=True)
    shared.chmod(0o777)
    use(monkeypatch, shared / "ours")
    monkeypatch.setattr(sockets, "_bases", lambda: [shared / "ours"])
    with pytest.raises(NoWorkersError, match=rf"\({shared}/ours: others may rename what lies in {shared}\)$"):
        socket_folder(NAMES).__enter__()
    shared.chmod(0o1777)  # as the system's own: only its owner renames what lies there
    with socket_folder(NAMES) as folder:
        assert folder.is_relative_to(shared)


def test_links_to_the_place_are_followed_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "there").mkdir()
    (place / "link").symlink_to(place / "there")
    use(monkeypatch, place / "link")
    with socket_folder(NAMES) as folder:
        assert folder.is_relative_to(place / "there")


def test_no_place_is_told_with_the_reason_for_each(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = place / "missing"
    monkeypatch.setattr(sockets, "LONGEST_PATH", 20)
    use(monkeypatch, place, missing)
    with pytest.raises(NoWorkersError) as error:
        socket_folder(NAMES).__enter__()
    assert f"{place}: paths of sockets there are longer than 20 bytes" in str(error.value)
    assert f"{missing}: " in str(error.value)


_CONNECT = """
import os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except PermissionError:
    sys.exit(13)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_cannot_connect(place: Path) -> None:
    place.chmod(0o755)
    with socket_folder(NAMES) as folder, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "control"))
        listening.listen()
        (folder / "control").chmod(0o777)
        connect = [sys.executable, "-c", _CONNECT, str(folder / "control")]
        assert subprocess.run(connect).returncode == 13
        # It is by these folders that they cannot.
        for opened in (folder, folder.parent):
            opened.chmod(0o755)
        assert subprocess.run(connect).returncode == 0
