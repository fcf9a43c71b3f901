"""The best content of several writers of one file stays, at whatever moment each of them writes."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.services.gcs_requests import Requests, gcs_requests
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.exclusive import put_unless
from transforms.files.listing import list_files

__all__ = ["gcs_requests"]


def is_larger(content: bytes, other: bytes) -> bool:
    return int(content) >= int(other)


def put(path: str, number: int) -> int:
    """Writes a number, unless one is there that is as large; returns the one that is there then."""
    return int(put_unless(path, str(number).encode(), is_larger))


@pytest.fixture(params=["local", "gs"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = str(tmp_path) if request.param == "local" else request.getfixturevalue("gcs_prefix")
    return f"{folder}/work/shard-00000.json"


def test_what_holds_more_stays(path: str) -> None:
    assert [put(path, number) for number in (5, 3, 5, 18, 7)] == [5, 5, 5, 18, 18]
    assert storage.read_bytes(path) == b"18"


def test_nothing_is_left_beside_it(path: str) -> None:
    for number in (5, 3, 18):
        put(path, number)
    assert [found for found, _ in list_files(path.rpartition("/")[0], "*")] == [path]
    assert storage.delete_temporary(path.rpartition("/")[0]) == []


def test_many_writers_at_once(tmp_path: Path) -> None:
    path, numbers = str(tmp_path / "count"), [(7 * number) % 40 for number in range(40)]
    stood: dict[int, int] = {}
    start = threading.Barrier(len(numbers))

    def write(number: int) -> None:
        start.wait()
        stood[number] = put(path, number)

    threads = [threading.Thread(target=write, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert storage.read_bytes(path) == b"39"
    assert all(there >= number for number, there in stood.items())
    assert os.listdir(tmp_path) == ["count"]


@pytest.mark.parametrize(
    "late", [[9], [3], [None, 9], [None, 3], [9, 7], [7, 9], [None, 9, 7], [None, 9, 7, 8], [9, 11]]
)
@pytest.mark.parametrize("there", [1, None])
def test_writers_that_come_between_looking_and_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: int | None, late: Sequence[int | None]
) -> None:
    """They are other processes: they know nothing of this one, and write between any two of this one's calls."""
    path = str(tmp_path / "count")
    if there is not None:
        put(path, there)
    waiting = list(late)
    for name in ("link", "rename"):
        call = getattr(os, name)

        def between(*arguments: str, call: Callable[..., None] = call) -> None:
            if waiting and (number := waiting.pop(0)) is not None:
                to_come, waiting[:] = waiting[:], []
                put(path, number)
                waiting[:] = to_come
            call(*arguments)

        monkeypatch.setattr(os, name, between)
    stands = put(path, 5)
    come = [number for number in late[: len(late) - len(waiting)] if number is not None]
    assert stands == max(5, *come, there or 0)
    assert storage.read_bytes(path) == str(stands).encode()
    assert os.listdir(tmp_path) == ["count"]


@pytest.mark.parametrize("late", [9, 3])
def test_in_a_bucket_as_well(gcs_prefix: str, gcs_requests: Requests, late: int) -> None:
    path = f"{gcs_prefix}/count"
    put(path, 1)

    def write() -> None:
        storage.write_bytes(path, str(late).encode())

    gcs_requests.before("write", write)
    assert put(path, 5) == max(5, late)
    assert storage.read_bytes(path) == str(max(5, late)).encode()


@pytest.mark.parametrize("there", [None, 3, 9])
def test_a_disk_on_which_a_file_has_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: int | None
) -> None:
    path = str(tmp_path / "count")
    if there is not None:
        put(path, there)

    def refuse(*_: str) -> NoReturn:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    assert put(path, 5) == max(5, there or 0)
    assert os.listdir(tmp_path) == ["count"]


def test_a_disk_that_is_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(BroetchenError, match=r"count: cannot be written \(No space left on device\); free some space"):
        put(str(tmp_path / "count"), 5)
    assert os.listdir(tmp_path) == []
