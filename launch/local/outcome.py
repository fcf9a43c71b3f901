"""The outcome of a run: the cause of a crash, and whether its steps were all done, and saved."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from launch.job import Value
from launch.maxtext.ending import Ending, LogReader, done_steps, saved_steps
from launch.processes import last_lines, signal_name
from transforms.errors import BroetchenError

_MOST_LINE = 1 << 16
_SHOWN_LINES = 25
# The end of a log, with the noise around it, takes no more.
_TAIL_BYTES = 1 << 20


def ending_of(log: Path, *, offset: int | None = None) -> Ending:
    """The trainer's end, as a log tells it.

    Args:
        log: the file, which need not be there.
        offset: of the byte at which the trainer's start begins; None for the end of the log alone.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES) if offset is None else offset)
            return LogReader().read(_lines(file))
    except FileNotFoundError:
        return Ending()


def _lines(file: BinaryIO) -> Iterator[str]:
    while line := file.readline(_MOST_LINE):
        yield line.decode("utf-8", "replace")


def crash(name: str, status: int, ending: Ending, log: Path) -> BroetchenError:
    """The error of a trainer that ended with a status other than 0, negative for a signal's number."""
    how = f"was stopped by {signal_name(-status)}" if status < 0 else f"ended with status {status}"
    last = "" if ending.last_step is None else f" after step {ending.last_step}"
    if errors := "\n".join(ending.errors()):
        return BroetchenError(f"{name}: the trainer {how}{last}; the whole log is in {log}; its error is\n{errors}")
    end = last_lines(log, _SHOWN_LINES)
    return BroetchenError(f"{name}: the trainer {how}{last}; the whole log is in {log}, and its end is\n{end}")


def early_end(
    name: str, parameters: Mapping[str, Value], last: int | None, saved: Sequence[int], ending: Ending, log: Path
) -> BroetchenError | None:
    """The error of a trainer that ended with the status 0, but not after its last step; None where all is well.

    Args:
        name: of the run.
        parameters: of MaxText.
        last: the last step that was done, in all of the run's starts; None where there is none.
        saved: the steps that there are checkpoints of.
        ending: by the log.
        log: where that is.
    """
    steps = parameters.get("steps")
    if not isinstance(steps, int) or (last is not None and last >= steps - 1):
        return None
    if ending.stopped is not None and not ending.is_early:
        return None
    done, kept = done_steps(last, steps), saved_steps(last, max(saved, default=None))
    return BroetchenError(
        f"{name}: ended early, {done}: {ending.reason()}; {kept}. "
        f"{_advice(parameters, last, saved, ending)}; the whole log is in {log}"
    )


def _advice(parameters: Mapping[str, Value], last: int | None, saved: Sequence[int], ending: Ending) -> str:
    if ending.was_told_to:
        return "Start it again: it goes on from its last checkpoint"
    if not ending.is_out_of_data:
        return "See what broetchen verify says of the data; a start goes on from the last checkpoint"
    more = "Build more tokens, or write a larger `num_epoch`"
    if last is None or last in saved:
        return more
    # MaxText's schedule is as long as the steps, unless it is told otherwise.
    schedule = parameters.get("learning_rate_schedule_steps", -1)
    same = f", with `learning_rate_schedule_steps: {parameters['steps']}` as it was" if schedule == -1 else ""
    return f"{more}; or write `steps: {last + 1}`{same}, which ends with a checkpoint"
