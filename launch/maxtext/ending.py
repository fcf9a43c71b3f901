"""How a trainer ended, by its log: the last step, why MaxText stopped by itself, and the error of a crash.

MaxText ends with the exit status 0 where it runs out of data or cannot read it, and writes no checkpoint then
(`StopTraining`, caught by `train_loop` in `maxtext/trainers/pre_train/train.py`, 0.2.5). After an error the
interpreter's end prints hundreds of lines, so that the last ones say nothing.

On TPUs' machines this file runs the trainer (`main`), without the rest of Brötchen: it imports the standard library
alone.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import FrameType

EARLY = 65
"""The exit status of `main` where the training ended before its last step; to start it again would not help."""

SAYS = "broetchen: "
"""How the line begins that `main` puts at the end of the log."""

_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MOST_LINES, _MOST_LETTERS = 8, 600
# Of a message, to see whether another one repeats it.
_COMPARED = 100
_MOST_LINE = 1 << 16
_LAST_OUTPUT_S = 5.0

# absl's and glog's lines: https://github.com/google/glog/blob/master/docs/logging.md#log-line-format
_LOGGED = re.compile(r"(?P<level>[IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ (?P<file>[\w.]+):\d+\] ?(?P<text>.*)", re.DOTALL)
_STEP = re.compile(r"(?:.*, )?completed (?:profiler activation/deactivation )?step: (\d+)(?!\d)")
_SAVED = (
    re.compile(r"Saved a checkpoint at step (\d+)\."),
    re.compile(r".*Finished saving checkpoint .*/checkpoints/(\d+)`\."),
    re.compile(r"restoring from this run's directory step (\d+)"),
)
_STOPPED = "Training stopped: "
_ABORTED = "Aborting training due to "
_STARTED = "System Information: Jax Version"
_TRACEBACK = "Traceback (most recent call last):"
_ERROR = re.compile(r"[A-Za-z_][\w.]*(?:: .*)?", re.DOTALL)
_CAUSE_OF = "The above exception was the direct cause of the following exception:"
_DURING = "During handling of the above exception, another exception occurred:"
_NOISE = ("Exception ignored in", "Error in atexit", "Error in sys.")
_CHILD = re.compile(r"Process [\w.-]+:")
_THREAD = "Exception in thread"
# JAX adds these to show where an operation comes from; the error itself follows.
_NO_ERRORS = ("jax.errors.JaxStackTraceBeforeTransformation", "jax.errors.SimplifiedTraceback")
_WARNING = re.compile(r"\S+:\d+: \w*Warning: ")
_FATAL = ("Fatal Python error:", "terminate called after throwing", "*** SIG")

_OUT_OF_DATA = "You may have run out of training data."
_UNREADABLE = re.compile(
    r"`next\(self\.data_iterator\)` failed with <class '([\w.]+)'> exception: \((.*)\)\.?", re.DOTALL
)
_TOLD_TO = "Job received termination signal"
_TARGET = "Target loss "


@dataclass(frozen=True)
class Ending:
    """A trainer's end, as a log tells it.

    Attributes:
        last_step: the last that was completed; None where there is none.
        saved: the last step that there is a checkpoint of, as far as the log tells.
        stopped: why MaxText stopped by itself, in its own words; None where it did not.
        error: of the traceback that came last, with its message; of an abort, the line about it.
        cause: the error that was the direct cause of it, where that is another one.
        of_child: the first error of another process or thread than the main one.
    """

    last_step: int | None = None
    saved: int | None = None
    stopped: str | None = None
    error: str | None = None
    cause: str | None = None
    of_child: str | None = None

    @property
    def is_early(self) -> bool:
        """Whether MaxText stopped by itself, and not since the loss that was wanted is reached."""
        return self.stopped is not None and not self.stopped.startswith(_TARGET)

    @property
    def was_told_to(self) -> bool:
        """Whether it stopped since it was told to, by a signal."""
        return self.stopped is not None and self.stopped.startswith(_TOLD_TO)

    @property
    def is_out_of_data(self) -> bool:
        """Whether it stopped since there was no more data."""
        return self.stopped is not None and self.stopped.startswith(_OUT_OF_DATA)

    def reason(self) -> str:
        """Why it ended early, in plain words.

        >>> Ending(stopped="`next(self.data_iterator)` failed with <class 'OSError'> exception: (gone).").reason()
        'a batch could not be read (OSError: gone)'
        """
        said = self.stopped or ""
        if self.is_out_of_data:
            return "the data has no more for a step"
        if unreadable := _UNREADABLE.fullmatch(said):
            return f"a batch could not be read ({unreadable[1]}: {unreadable[2]})"
        if self.was_told_to:
            return "it was told to stop (SIGTERM)"
        return said or "MaxText does not say why"

    def errors(self) -> list[str]:
        """The lines about a crash: its cause, the error that followed, and that of another process."""
        found = [error for error in (self.cause, self.error) if error is not None]
        if len(found) > 1 and found[0].partition(": ")[2][:_COMPARED] in found[1]:
            found = found[1:]  # it repeats its cause
        if self.of_child is not None and self.of_child not in found:
            found.append(f"in another process or thread: {self.of_child}")
        return found


class LogReader:
    """Reads a log line by line, of any length, and keeps the facts about its end."""

    def __init__(self) -> None:
        """Nothing is read so far."""
        self._reset()
        self._before = ""
        self._kind: str | None = None
        self._message: list[str] | None = None
        self._in_stack = False

    def _reset(self) -> None:
        self._last_step: int | None = None
        self._saved: int | None = None
        self._stopped: str | None = None
        self._error: str | None = None
        self._chain: str | None = None
        self._of_child: str | None = None

    def read(self, lines: Iterable[str]) -> Ending:
        """Reads lines, and says how it ended so far."""
        for line in lines:
            self.feed(line)
        return self.ending()

    def feed(self, line: str) -> None:
        """Reads a line."""
        line = line.rstrip("\r\n")
        if logged := _LOGGED.match(line):
            self._close()
            self._log(logged["level"], logged["file"], logged["text"])
        elif line.lstrip(" |+").endswith(_TRACEBACK):
            self._close()
            self._kind, self._in_stack = self._kind_by(self._before), True
        elif self._in_stack:
            # A stack's lines are indented; the first that is not is the error, unless JAX parts something with a rule.
            if line and not line[0].isspace() and _ERROR.fullmatch(line):
                self._in_stack, self._message = False, [line]
        elif self._message is not None and line.strip() and not self._is_another(line):
            if len(self._message) < _MOST_LINES:
                self._message.append(line)
        else:
            self._close()
            if line.startswith(_FATAL):
                self._error, self._chain = line, None
        if line.strip():
            self._before = line

    def ending(self) -> Ending:
        """How it ended, by the lines read so far."""
        self._close()
        return Ending(
            self._last_step,
            self._saved,
            _short(self._stopped),
            _short(self._error),
            _short(self._chain) if self._chain != self._error else None,
            _short(self._of_child),
        )

    def _log(self, level: str, file: str, text: str) -> None:
        if _STARTED in text:
            self._reset()
        elif step := _STEP.match(text):
            self._last_step = int(step[1])
        elif saved := next((match for pattern in _SAVED if (match := pattern.match(text))), None):
            self._saved = int(saved[1])
        elif text.startswith(_STOPPED):
            self._stopped = text.removeprefix(_STOPPED)
        elif text.startswith(_ABORTED) or level == "F":
            self._error, self._chain = text, None

    @staticmethod
    def _is_another(line: str) -> bool:
        """Whether a line is no part of the message before it."""
        return bool(line.startswith((*_NOISE, _THREAD, *_FATAL)) or _CHILD.fullmatch(line) or _WARNING.match(line))

    @staticmethod
    def _kind_by(before: str) -> str:
        """The subject of a traceback, by the line before it."""
        if before.startswith(_NOISE):
            return "noise"
        if before == _CAUSE_OF:
            return "effect"
        if _CHILD.fullmatch(before) or before.startswith(_THREAD):
            return "child"
        return "main" if before != _DURING else "again"

    def _close(self) -> None:
        """Ends the message that is being read."""
        message, self._message, self._in_stack = self._message, None, False
        if message is None or message[0].startswith(_NO_ERRORS):
            return
        error = "\n".join(message)
        if self._kind == "child":
            self._of_child = self._of_child or error
        elif self._kind == "effect":
            self._error, self._chain = error, self._chain or self._error
        elif self._kind != "noise":
            self._error, self._chain = error, None


def _short(text: str | None) -> str | None:
    """The beginning: a few lines of a few hundred letters at most, without control characters."""
    if text is None:
        return None
    lines = text.splitlines()
    half = _MOST_LETTERS // 2
    cut = [line if len(line) <= _MOST_LETTERS else f"{line[:half]} … {line[-half:]}" for line in lines[:_MOST_LINES]]
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in cut)


# --- As a program -----------------------------------------------------------------------------------------------------


def done_steps(last: int | None, steps: object) -> str:
    """How far a run has come.

    >>> done_steps(5, 9), done_steps(None, 9)
    ('last step 5 of 9', 'none of 9 steps was done')
    """
    return f"none of {steps} steps was done" if last is None else f"last step {last} of {steps}"


def saved_steps(last: int | None, saved: int | None) -> str:
    """Whether the last steps of a run were saved.

    >>> saved_steps(5, 3), saved_steps(5, 5), saved_steps(4, 3), saved_steps(2, None)
    ('steps 4 to 5 are not saved', 'all its steps are saved', 'step 4 is not saved', 'none of its steps is saved')
    """
    if saved is None:
        return "none of its steps is saved"
    first = saved + 1
    if last is None or first > last:
        return "all its steps are saved"
    return f"step {last} is not saved" if first == last else f"steps {first} to {last} are not saved"


def summary(ending: Ending, steps: str, status: int = 0) -> str:
    """The line at the end of a log.

    >>> summary(Ending(5, 3, "You may have run out of training data. Received …"), "9")
    'the training ended early, last step 5 of 9: the data has no more for a step; steps 4 to 5 are not saved'
    """
    last = done_steps(ending.last_step, steps)
    saved = f"; {saved_steps(ending.last_step, ending.saved)}" if ending.last_step is not None else ""
    if ending.is_early:
        return f"the training ended early, {last}: {ending.reason()}{saved}"
    return f"the trainer has failed, {last}: {'; '.join(ending.errors()) or f'it ended with {status}'}{saved}"


def main(command: Sequence[str]) -> int:
    """Runs a trainer, prints its output, and at the end in a line the reason of its end, unless all went well.

    Signals to end are passed on to it; where one has ended it, this process ends by it as well.

    Returns:
        The exit status of the trainer, and `EARLY` where it is 0 but MaxText stopped before its last step.
    """
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def forward(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    for number in _TO_END:
        signal.signal(number, forward)
    reader = LogReader()

    def copy() -> None:
        assert process.stdout is not None
        while line := process.stdout.readline(_MOST_LINE):
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            reader.feed(line.decode("utf-8", "replace"))

    # Processes that the trainer leaves behind may hold the pipe open.
    copying = threading.Thread(target=copy, daemon=True)
    copying.start()
    status = process.wait()
    copying.join(_LAST_OUTPUT_S)
    ending = reader.ending()
    if status == 0 and ending.was_told_to:
        status = -signal.SIGTERM
    if ending.is_early or (status and status not in (-number for number in _TO_END)):
        steps = next((word.removeprefix("steps=") for word in command if word.startswith("steps=")), "?")
        print(f"{SAYS}{' '.join(summary(ending, steps, status).split())}", flush=True)
    if status < 0:
        _end_by(-status)
    return status or (EARLY if ending.is_early else 0)


def _end_by(number: int) -> None:
    """Ends this process by a signal, so that its parent sees the same as of the trainer."""
    sys.stdout.flush()
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
