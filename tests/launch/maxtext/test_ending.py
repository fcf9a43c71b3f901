"""How a trainer ended, by the logs of real ends of MaxText 0.2.5; parameters and most of the noise are left out."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.maxtext import ending
from launch.maxtext.ending import EARLY, Ending, LogReader, summary
from tests.support.examples import at_most

LOGS = Path(__file__).parents[2] / "support" / "trainer_logs"
LOGGED = "I1129 21:32:10.391026 140660849113984 train.py:1454] "


def ended(name: str) -> Ending:
    return LogReader().read((LOGS / f"{name}.log").read_text(encoding="utf-8").splitlines(keepends=True))


@pytest.mark.parametrize(
    ("log", "last", "said"),
    [
        ("out_of_data", 7, "the training ended early, last step 7 of 12: the data has no more for a step"),
        (
            "damaged_shard",
            None,
            "the training ended early, none of 12 steps was done: a batch could not be read (RuntimeError: Corrupted "
            "Riegeli/records file: chunk header hash mismatch",
        ),
        (
            "more_workers",  # after a restart with two of them in the place of one
            None,
            "none of 12 steps was done: a batch could not be read (IndexError: Checkpoint `next_index` 258 is out of",
        ),
        (
            "record_too_long",
            None,
            "a batch could not be read (ValueError: Inputs to PackedBatch must be truncated to max",
        ),
        ("segmentation_fault", None, "none of 12 steps was done: Fatal Python error: Segmentation fault"),
        ("loss_is_nan", 3, "the trainer has failed, last step 3 of 12: Aborting training due to NaN loss."),
        ("unknown_parameter", None, "the trainer has failed, none of 12 steps was done: ValueError: 'stepz' not in '"),
        ("file_in_the_way", None, "FileExistsError: [Errno 17] File exists: '/runs/file/checkpoints'"),
        ("disk_is_full", None, "none of 12 steps was done: ValueError: RESOURCE_EXHAUSTED: Error writing "),
        (
            "another_model",
            None,
            ": ValueError: Requested shape: (128, 2, 64) is not compatible with the stored shape: ",
        ),
    ],
)
def test_real_ends(log: str, last: int | None, said: str) -> None:
    found = ended(log)
    assert found.last_step == last
    assert said in summary(found, "12", 1)
    assert "CLEANUP" not in summary(found, "12", 1)
    assert found.is_early == (log in ("out_of_data", "damaged_shard", "more_workers", "record_too_long"))
    assert found.is_out_of_data == (log == "out_of_data")


def test_the_cause_stands_before_what_it_led_to() -> None:
    errors = ended("another_model").errors()
    assert [re.split(r"[:.]", error)[0] for error in errors] == ["ValueError", "orbax"]
    # An error that repeats its cause is enough, and the end of a message may be what it is about.
    assert Ending(cause="ValueError: no space", error="RuntimeError: Checkpointing failed. no space").errors() == [
        "RuntimeError: Checkpointing failed. no space"
    ]
    (error,) = ended("disk_is_full").errors()
    assert error.endswith("No space left on device [os_error_code='28']")
    (error,) = read(f"{TRACEBACK}ValueError: {'long ' * 1000}: no space left\n").errors()
    assert error.startswith("ValueError: long long")
    assert error.endswith("long : no space left")
    assert len(error) < 700


TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n    ^^^\n'


def read(text: str) -> Ending:
    return LogReader().read(text.splitlines(keepends=True))


def test_errors_while_the_interpreter_ends_are_noise() -> None:
    crash = f"{TRACEBACK}ValueError: the cause\n  in two lines\n"
    noise = f"Exception ignored in: <function A.__del__ at 0x7fd3>\n{TRACEBACK}AssertionError: ()\n"
    found = read(f"{crash}{noise}Error in atexit._run_exitfuncs:\n{TRACEBACK}OSError: gone\n{LOGGED}CLEANUP\n")
    assert found.errors() == ["ValueError: the cause\n  in two lines"]
    assert read(noise).errors() == []


def test_the_first_error_of_another_process_is_kept() -> None:
    child = f"Process SpawnProcess-3:\n{TRACEBACK}KeyError: 'parents'\n"
    other = f"Process SpawnProcess-4:\n{TRACEBACK}BrokenPipeError: [Errno 32] Broken pipe\n"
    thread = f"Exception in thread Thread-7 (run):\n{TRACEBACK}OSError: late\n"
    found = read(f"{child}{other}{thread}{TRACEBACK}RuntimeError: Worker process was terminated\n")
    assert found.errors() == [
        "RuntimeError: Worker process was terminated",
        "in another process or thread: KeyError: 'parents'",
    ]


def test_chains_and_what_jax_adds() -> None:
    during = "\nDuring handling of the above exception, another exception occurred:\n\n"
    direct = "\nThe above exception was the direct cause of the following exception:\n\n"
    first, second = f"{TRACEBACK}KeyError: 1\n", f"{TRACEBACK}b.ValueError: 2\n"
    assert read(first + during + second).errors() == ["b.ValueError: 2"]
    assert read(first + direct + second).errors() == ["KeyError: 1", "b.ValueError: 2"]
    third = f"{TRACEBACK}RuntimeError: 3\n"
    assert read(first + direct + second + direct + third).errors() == ["KeyError: 1", "RuntimeError: 3"]
    stack = f"{TRACEBACK}jax.errors.JaxStackTraceBeforeTransformation: TypeError: x\n\nThe preceding stack trace\n"
    assert read(stack + "--------------------\n" + second).errors() == ["b.ValueError: 2"]
    # A message that stands alone, and an error whose message begins a line of its own.
    assert read(f"{TRACEBACK}KeyboardInterrupt\n").errors() == ["KeyboardInterrupt"]
    assert read("Fatal Python error: Segmentation fault\n\nThread 0x1 (most recent call first):\n").errors() == [
        "Fatal Python error: Segmentation fault"
    ]
    assert read("F1129 21:32:10.391026 16964 dump.cc:725] Check failed: a == b\n").errors() == ["Check failed: a == b"]


def test_what_was_saved_is_seen() -> None:
    """MaxText's own lines and Orbax's tell it, whether it saves in the background or not."""
    assert ended("out_of_data").last_step == 7
    steps = f"{LOGGED}completed step: 7, seconds: 1\n"
    for line in (
        "Saved a checkpoint at step 6.",
        "[process=0][thread=async_save] Finished saving checkpoint (finalized tmp dir) to `/runs/dry/checkpoints/6`.",
        "restoring from this run's directory step 6",
    ):
        found = read(f"{LOGGED}{line}\n{steps}")
        assert (found.last_step, found.saved) == (7, 6)
        assert summary(found, "9", 1).endswith("it ended with 1; step 7 is not saved")


def test_an_earlier_start_does_not_count() -> None:
    stopped = f"{LOGGED}Training stopped: You may have run out of training data.\n"
    again = "I1129 21:32:10.391026 1 max_utils.py:835] System Information: Jax Version: 0.12.0.1\n"
    assert read(stopped).is_early
    assert not read(f"{LOGGED}completed step: 5, x\n{stopped}{TRACEBACK}OSError: a\n{again}").is_early
    assert read(stopped + again) == Ending()
    assert read(f"{LOGGED}[Rampup Batch Size Phase], completed step: 12, seconds: 1.000\n").last_step == 12
    # A loss that was wanted is a good end.
    assert not read(f"{LOGGED}Training stopped: Target loss self.config.target_eval_loss=3.0 is achieved.\n").is_early


@at_most(50)
@given(
    st.lists(st.one_of(st.text(), st.sampled_from([TRACEBACK, LOGGED, f"{LOGGED}completed step: ", "\r", "a.B: c"])))
)
def test_any_text_is_read(lines: list[str]) -> None:
    found = LogReader().read(lines)
    shown = summary(found, "9", 1)
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert len(shown) < 100_000


def run(code: str, *, end_it: bool = False) -> tuple[int, str]:
    """A Python program in the place of a trainer, as TPUs' machines run one."""
    command = [sys.executable, "-I", ending.__file__, sys.executable, "-c", code, "steps=9"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline() if end_it else ""
        if end_it:
            process.send_signal(signal.SIGTERM)
        said = first + process.stdout.read()
    return process.returncode, said


STOPPED = f"print({LOGGED + 'completed step: 5, x'!r}); print({LOGGED + 'Training stopped: '!r} + "


def test_as_a_program_it_makes_an_early_end_a_failure() -> None:
    status, said = run(f"{STOPPED}'You may have run out of training data.')")
    assert status == EARLY
    assert said.endswith(
        "broetchen: the training ended early, last step 5 of 9: the data has no more for a step; none of its steps is "
        "saved\n"
    )
    assert run(f"{STOPPED}'Target loss reached')")[0] == 0
    assert run("print('ö')") == (0, "ö\n")
    status, said = run("1/0")
    assert (status, said.splitlines()[-1]) == (
        1,
        "broetchen: the trainer has failed, none of 9 steps was done: ZeroDivisionError: division by zero",
    )
    status, said = run("import os, signal; os.kill(os.getpid(), signal.SIGABRT)")
    assert (status, said) == (-6, "broetchen: the trainer has failed, none of 9 steps was done: it ended with -6\n")


def test_as_a_program_it_ends_when_it_is_told_to() -> None:
    """It does not wait for processes that the trainer leaves behind, which have the same output."""
    began = time.monotonic()
    status, said = run("print('goes on', flush=True); import time; time.sleep(60)", end_it=True)
    assert (status, said) == (-signal.SIGTERM, "goes on\n")
    code = f"import signal, time; signal.signal(15, lambda *a: None); print('x', flush=True); time.sleep(.3); {STOPPED}"
    status, said = run(f"{code}'Job received termination signal (SIGTERM).')", end_it=True)
    assert status == -signal.SIGTERM
    assert "it was told to stop (SIGTERM)" in said
    left = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)'])"
    with subprocess.Popen(
        [sys.executable, "-I", ending.__file__, sys.executable, "-c", left], stdout=subprocess.DEVNULL
    ) as process:
        assert process.wait(15) == 0
    assert time.monotonic() - began < 40
