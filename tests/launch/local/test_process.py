"""The process of a trainer on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launch.local.process import held, owner_of, run_trainer
from transforms.errors import BroetchenError


class Interrupting:
    """Is interrupted while it is finalized, where Python drops the exception of the signal."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_interrupt_is_lost(tmp_path: Path) -> None:
    def watch() -> None:
        Interrupting()

    with handled(signal.SIGINT, signal.default_int_handler), pytest.raises(KeyboardInterrupt):
        train(tmp_path, "sleep", "600", watch=watch)


def train(folder: Path, *command: str, watch: Callable[[], None]) -> int:
    with held(folder / "lock") as lock:
        assert lock is not None
        return run_trainer(
            command, folder=folder, environment=dict(os.environ), log=folder / "log", lock=lock, watch=watch
        )


@contextlib.contextmanager
def handled(number: signal.Signals, handler: Callable[..., object] | signal.Handlers) -> Iterator[None]:
    """Has this process ignore a signal, as where `nohup` or a script's `&` has started it, or not."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_is_ignored_ends_no_training(tmp_path: Path, number: signal.Signals) -> None:
    with handled(number, signal.SIG_IGN):
        assert train(tmp_path, "sh", "-c", "exit 3", watch=lambda: os.kill(os.getpid(), number)) == 3
        assert signal.getsignal(number) is signal.SIG_IGN


def test_a_trainer_that_ignores_ctrl_c_is_ended_nevertheless(tmp_path: Path) -> None:
    def watch() -> None:
        while (tmp_path / "log").read_text() != "begun\n":
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    trainer = "trap 'echo ended; exit' TERM; sleep 600 & echo begun; wait"
    with handled(signal.SIGINT, signal.SIG_IGN), pytest.raises(KeyboardInterrupt):
        train(tmp_path, "sh", "-c", trainer, watch=watch)
    assert (tmp_path / "log").read_text() == "begun\nended\n"


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_link_in_the_place_of_a_lock_or_log_is_not_written(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("lock", "log"):
        link(tmp_path / name, victim)
        with pytest.raises(BroetchenError, match=rf"{name}: is a (symbolic link|file with 2 names)"):
            train(tmp_path, "true", watch=lambda: None)
        (tmp_path / name).unlink()
        assert victim.read_text() == "precious"


def test_a_process_that_somebody_else_names_is_none_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "lock"
    lock.write_text(str(os.getpid()))
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert owner_of(lock) == os.getpid()
        monkeypatch.setattr(os, "geteuid", lambda: 54_321)
        with pytest.raises(BroetchenError, match="lock: is a file of user"):
            owner_of(lock)
