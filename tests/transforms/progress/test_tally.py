"""Counters of workers: the sums of a reader, and that counting never stops a work."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from transforms.progress import tally as module
from transforms.progress.tally import Tallied, Tally, TallyReader, parse_tally, worker_tally


def test_workers_add_up(tmp_path: Path) -> None:
    reader = TallyReader(str(tmp_path))
    assert reader.read() == Tallied(0, 0)

    def work(amount: int) -> None:
        tally = worker_tally(str(tmp_path))
        tally.expect(amount)
        with tally.element(amount) as counted:
            counted(amount // 2)
        assert worker_tally(str(tmp_path)) is tally

    threads = [threading.Thread(target=work, args=(amount,)) for amount in (10, 200, 3000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reader.read() == Tallied(3210, 3210)
    assert len(list(tmp_path.iterdir())) == 3


def test_an_element_counts_its_size_whatever_its_parts_say(tmp_path: Path) -> None:
    tally = Tally(str(tmp_path / "a.tally"))
    with tally.element(100) as counted:
        counted(70)
        counted(70)
        assert tally.done == 100
    with tally.element(50) as counted:
        counted(1)
    assert tally.done == 150
    assert TallyReader(str(tmp_path)).read() == Tallied(150, 0)


def test_it_is_written_at_once_and_then_now_and_then(tmp_path: Path) -> None:
    reader = TallyReader(str(tmp_path))
    with Tally(str(tmp_path / "a.tally")) as tally:
        tally.add(1)
        assert reader.read().done == 1
        writes, noted, started = 0, (tmp_path / "a.tally").stat().st_mtime_ns, time.monotonic()
        while time.monotonic() - started < 0.6:
            tally.add(1)
            if (now := (tmp_path / "a.tally").stat().st_mtime_ns) != noted:
                writes, noted = writes + 1, now
        assert 1 <= writes <= 3
        noted_sum = reader.read().done
        assert noted_sum > 1
    assert not list(tmp_path.iterdir())
    assert reader.read().done == noted_sum  # a number that was read once stays


def test_a_folder_that_is_not_there_or_a_link_stops_nothing(tmp_path: Path) -> None:
    away = Tally(str(tmp_path / "gone" / "a.tally"))
    away.add(5)
    away.add(5)
    assert away.done == 10
    assert not (tmp_path / "gone").exists()
    (tmp_path / "theirs").write_text("keep")
    (tmp_path / "a.tally").symlink_to(tmp_path / "theirs")
    Tally(str(tmp_path / "a.tally")).add(7)
    assert (tmp_path / "theirs").read_text() == "keep"
    Tally(None).add(1)


@pytest.mark.parametrize("content", [b"", b"1 2", b"1 2 4", b"a b c", b"1 2 3 4", b"-1 2 1", b"\xff" * 200])
def test_what_is_no_tally_is_left_out(tmp_path: Path, content: bytes) -> None:
    assert parse_tally(content) is None
    (tmp_path / "a.tally").write_bytes(content)
    (tmp_path / "other.json").write_bytes(b"1 2 3")
    assert TallyReader(str(tmp_path)).read() == Tallied(0, 0)


def test_in_a_bucket(gcs_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of its own writes it, to the very last count."""
    monkeypatch.setattr(module, "_REMOTE_INTERVAL_S", 0.3)
    reader = TallyReader(gcs_prefix)
    with Tally(f"{gcs_prefix}/a.tally") as tally:
        tally.add(3)
        tally.expect(9)
        with tally.element(4):
            pass
        deadline = time.monotonic() + 20
        while reader.read() != Tallied(7, 9) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert reader.read() == Tallied(7, 9)
    assert TallyReader(gcs_prefix).read() == Tallied(0, 0)
