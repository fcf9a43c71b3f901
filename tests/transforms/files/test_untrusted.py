"""Files from anywhere: only regular ones are opened, and JSON that lies about itself is none."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from transforms.errors import BroetchenError
from transforms.files.untrusted import check_regular, parse_json, read_bounded

SECRET = b"secret"


def link(path: Path) -> None:
    (path.parent / "outside").write_bytes(SECRET)
    path.symlink_to(path.parent / "outside")


def bound(path: Path) -> None:
    with contextlib.chdir(path.parent), contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(path.name)


OTHERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "link": (link, "not a regular file but a link, which is not followed"),
    "dangling": (lambda path: path.symlink_to("gone"), "not a regular file but a link, which is not followed"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file but a link, which is not followed"),
    "fifo": (os.mkfifo, "not a regular file but a FIFO"),
    "folder": (Path.mkdir, "not a regular file but a folder"),
    "socket": (bound, "not a regular file but a socket"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_only_a_regular_file_is_read(tmp_path: Path, other: str) -> None:
    """It does not wait for a writer of a FIFO."""
    path = tmp_path / "file"
    OTHERS[other][0](path)
    said = f"{path}: {OTHERS[other][1]}; put the file itself there"
    for look in (check_regular, lambda name: read_bounded(name, 10)):
        with pytest.raises(BroetchenError) as caught:
            look(str(path))
        assert str(caught.value) == said


def test_a_device_is_named() -> None:
    with pytest.raises(BroetchenError, match="/dev/zero: not a regular file but a device"):
        check_regular("/dev/zero")


def test_a_regular_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    check_regular(str(path))
    check_regular(str(path), within=str(tmp_path))
    assert read_bounded(str(path), 3) == b"abc"
    with pytest.raises(BroetchenError, match="file: 3 bytes, more than the 2 that are read; is it the right file"):
        read_bounded(str(path), 2)


def test_of_a_file_that_is_too_large_nothing_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(300 << 20)
    tracemalloc.start()
    with pytest.raises(BroetchenError, match="314,572,800 bytes"):
        read_bounded(str(path), 256 << 20)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_file_that_is_gone_is_not_there(tmp_path: Path) -> None:
    check_regular(str(tmp_path / "gone"))
    with pytest.raises(BroetchenError, match="No such file"):
        read_bounded(str(tmp_path / "gone"), 9)


def test_what_lies_in_a_store_is_a_file() -> None:
    check_regular("gs://bucket/file", within="gs://bucket")


def test_a_folder_that_is_a_link_leads_out(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(SECRET)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "below").symlink_to("../outside")
    path = str(tmp_path / "in" / "below" / "file")
    check_regular(path)
    check_regular(path, within=str(tmp_path))
    with pytest.raises(BroetchenError, match=r"leads out of .*/in, by a link to another folder"):
        check_regular(path, within=str(tmp_path / "in"))


def test_json_is_what_json_says() -> None:
    assert parse_json('{"ä": [1, -2.5, null, "\\ud83d\\ude42"]}'.encode()) == {"ä": [1, -2.5, None, "🙂"]}
    assert parse_json(rb'"\\ud800"') == r"\ud800"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "Invalid JSON: Expecting value at line 1 column 1"),
        (b'{"a": 1,\n"a": 2}', "Invalid JSON: a key stands twice in one object"),
        (b"[NaN]", "Invalid JSON: NaN is no number"),
        (b"[-Infinity]", "Invalid JSON: -Infinity is no number"),
        (b'["\xff"]', "Invalid JSON: not UTF-8 at byte 2"),
        ("[]".encode("utf-16"), "Invalid JSON: not UTF-8 at byte 0"),
        (rb'["\ud800"]', "Invalid JSON: half of a surrogate pair in a text"),
        (b"[" * 1_000_000, "Invalid JSON: nested too deep"),
        (b"[" * 5_000_000, "Invalid JSON: too many parts"),
        (b"[" + b"0," * (1 << 24) + b"0,0]", "Invalid JSON: too many parts"),
        (b"{%s}" % b",".join(b'"%d":0' % key for key in range(10_001)), "Invalid JSON: too many keys in one object"),
        (b"9" * 5000, "Exceeds the limit"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_json_that_is_none(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}.*$"):
        parse_json(data)
