"""The end of a run: errors that name the cause, the steps that were done, and those that were saved."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from launch.local.outcome import crash, early_end, ending_of
from launch.maxtext.ending import Ending

LOG = Path("/runs/a/trainer.log")
OUT_OF_DATA = "You may have run out of training data. Received <class 'StopIteration'> exception: ()"
LOGGED = "I1129 21:32:10.391026 140660849113984 train.py:1454] "


def said(last: int | None, saved: list[int], stopped: str | None = OUT_OF_DATA, **parameters: int) -> str | None:
    error = early_end("a", {"steps": 9, **parameters}, last, saved, Ending(last, stopped=stopped), LOG)
    return None if error is None else f"{error} ({error.exit_code})"


def test_a_run_that_ends_early() -> None:
    assert said(5, [0, 3]) == (
        "a: ended early, last step 5 of 9: the data has no more for a step; steps 4 to 5 are not saved. Build more "
        "tokens, or write a larger `num_epoch`; or write `steps: 6`, with `learning_rate_schedule_steps: 9` as it was, "
        "which ends with a checkpoint; the whole log is in /runs/a/trainer.log (1)"
    )
    assert "`steps: 6`, which ends with" in (said(5, [0, 3], learning_rate_schedule_steps=20) or "")
    assert "all its steps are saved. Build more tokens, or write a larger `num_epoch`; the whole" in (
        said(5, [5]) or ""
    )
    assert "none of 9 steps was done: the data has no more for a step; none of its" in (said(None, []) or "")
    unreadable = "`next(self.data_iterator)` failed with <class 'OSError'> exception: (gone)."
    assert "a batch could not be read (OSError: gone); step 4 is not saved. See what broetchen verify says" in (
        said(4, [3], unreadable) or ""
    )
    assert "MaxText does not say why" in (said(4, [3], None) or "")
    assert "it was told to stop (SIGTERM); step 4 is not saved. Start it again" in (
        said(4, [3], "Job received termination signal (SIGTERM).") or ""
    )


@pytest.mark.parametrize(
    ("last", "stopped"), [(8, None), (8, OUT_OF_DATA), (11, None), (4, "Target loss x=3 is achieved.")]
)
def test_a_run_that_ends_well(last: int, stopped: str | None) -> None:
    assert said(last, [0], stopped) is None


def test_a_crash_says_its_cause_or_shows_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    log.write_text("one\ntwo\n")
    error = crash("a", 1, Ending(4, error="ValueError: b", cause="OSError: c", of_child="KeyError: d"), log)
    assert str(error) == (
        f"a: the trainer ended with status 1 after step 4; the whole log is in {log}; its error is\n"
        "OSError: c\nValueError: b\nin another process or thread: KeyError: d"
    )
    assert str(crash("a", -signal.SIGTERM, Ending(), log)) == (
        f"a: the trainer was stopped by SIGTERM; the whole log is in {log}, and its end is\none\ntwo"
    )
    assert "SIGKILL (perhaps the machine's memory was full)" in str(crash("a", -signal.SIGKILL, Ending(), log))


def test_each_start_is_read_for_itself(tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    assert ending_of(log, offset=0) == Ending()
    first = f"{LOGGED}completed step: 5, x\n{LOGGED}Training stopped: {OUT_OF_DATA}\n"
    log.write_text(first)
    assert ending_of(log, offset=0).is_early
    with log.open("ab") as file:
        file.write(f"{LOGGED}completed step: 6, x\n".encode() + os.urandom(3_000_000).replace(b"\n", b"-"))
    assert ending_of(log, offset=len(first)) == Ending(6)
    assert ending_of(log) == Ending()  # no more than the end of it
