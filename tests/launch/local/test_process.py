"""The process of a trainer on this machine."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from launch.local.process import held, run_trainer


class Interrupting:
    """Is interrupted while it is finalized, where Python drops what the signal raises."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_interrupt_is_lost(tmp_path: Path) -> None:
    def watch() -> None:
        Interrupting()

    with held(tmp_path / "lock") as lock:
        assert lock is not None
        with pytest.raises(KeyboardInterrupt):
            run_trainer(
                ["sleep", "600"],
                folder=tmp_path,
                environment=dict(os.environ),
                log=tmp_path / "log",
                lock=lock,
                watch=watch,
            )
