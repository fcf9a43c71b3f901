"""The log of a run: MaxText's own metrics, from the event files that it writes for TensorBoard.

MaxText's `metrics_file` will not do: its first step of evaluation empties it (`write_metrics_locally` in
`maxtext/common/metric_logger.py`, 0.2.5), and its log has losses to three decimals. Event files are appended to, have
float32 values and the time of each, and there is one for each start of the run.

An event file is a TFRecord file of `tensorboard.Event`s: for each a length (uint64), its checksum (uint32), the bytes,
and their checksum (https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details).
"""

from __future__ import annotations

import math
import statistics
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboardX.proto.event_pb2 import Event  # type: ignore[import-untyped]

_LENGTH = struct.Struct("<Q")
_CHECKSUM_BYTES = 4
# More than any event has; a larger number is no length.
_MAX_EVENT = 1 << 30
# Starts are compiled for, and are slow.
_RATE_STEPS = 50

_LOSS, _EVAL_LOSS = "learning/loss", "eval/avg_loss"


@dataclass(frozen=True)
class Step:
    """A step of training.

    Attributes:
        number: counted from 0.
        start: which start of the run it is from, counted from 0.
        time: when it was logged, in seconds since 1970.
        loss: cross entropy in nats a token, with MaxText's other losses, where there are any.
        learning_rate: at this step.
        tokens: targets that the loss was taken over: padding, and the last token of each sequence, are none.
    """

    number: int
    start: int
    time: float
    loss: float
    learning_rate: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """e to the loss."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


@dataclass(frozen=True)
class History:
    """The values that a run has logged.

    Attributes:
        steps: by their numbers.
        eval_losses: the losses on the eval split, by the step that they were taken at.
        starts: how often the run was started, as far as it has logged anything.
    """

    steps: tuple[Step, ...]
    eval_losses: dict[int, float]
    starts: int

    def tokens_per_second(self) -> float | None:
        """The median over the last steps of one start; None where there are fewer than two."""
        last = [step for step in self.steps if step.start == self.steps[-1].start][-_RATE_STEPS:]
        # Events have their time when they are written, which is for two steps at once now and then.
        rates = [
            (later.tokens + step.tokens) / (later.time - earlier.time)
            for earlier, step, later in zip(last, last[1:], last[2:], strict=False)
            if later.time > earlier.time
        ]
        return statistics.median(rates) if rates else None


class EventFolder:
    """The event files of a run. Each `read` goes on where the last one ended."""

    def __init__(self, folder: Path) -> None:
        """The files in `folder`, which need not be there yet."""
        self._folder = folder
        self._offsets: dict[Path, int] = {}
        self._values: dict[Path, dict[int, dict[str, float]]] = {}

    def read(self) -> History:
        """All that has been logged so far."""
        # Their names have the time at which they were begun.
        paths = sorted(self._folder.glob("events.out.tfevents.*"), key=_begun)
        steps: dict[int, Step] = {}
        evals: dict[int, float] = {}
        for start, path in enumerate(paths):
            values = self._values.setdefault(path, {})
            self._offsets[path] = _read_events(path, self._offsets.get(path, 0), values)
            # A run that is started again does the steps after its last checkpoint again.
            first = min((number for number, step in values.items() if _LOSS in step), default=None)
            if first is not None:
                steps = {number: step for number, step in steps.items() if number < first}
                evals = {number: loss for number, loss in evals.items() if number < first}
            for number, step in sorted(values.items()):
                if _LOSS in step:
                    steps[number] = Step(
                        number=number,
                        start=start,
                        time=step["time"],
                        loss=step[_LOSS],
                        learning_rate=step.get("learning/current_learning_rate", math.nan),
                        tokens=int(step.get("learning/total_weights", 0)),
                    )
                if _EVAL_LOSS in step:
                    evals[number] = step[_EVAL_LOSS]
        return History(tuple(steps[number] for number in sorted(steps)), dict(sorted(evals.items())), len(paths))


def _begun(path: Path) -> tuple[int, str]:
    time = path.name.removeprefix("events.out.tfevents.").partition(".")[0]
    return (int(time) if time.isdecimal() else 0, path.name)


def _read_events(path: Path, offset: int, values: dict[int, dict[str, float]]) -> int:
    """Adds the scalars from `offset` on to `values`, by step and tag; answers where to go on."""
    with path.open("rb") as file:
        file.seek(offset)
        for record in _records(file.read()):
            event = Event()
            try:
                event.ParseFromString(record)
            except DecodeError:
                break
            offset += _LENGTH.size + _CHECKSUM_BYTES + len(record) + _CHECKSUM_BYTES
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    step = values.setdefault(event.step, {})
                    step[value.tag] = value.simple_value
                    if value.tag == _LOSS:
                        step["time"] = event.wall_time
    return offset


def _records(data: bytes) -> Iterator[bytes]:
    """The whole records; the last may be half written."""
    position = 0
    while position + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, position)
        begin = position + _LENGTH.size + _CHECKSUM_BYTES
        end = begin + length
        if length > _MAX_EVENT or end + _CHECKSUM_BYTES > len(data):
            return
        yield data[begin:end]
        position = end + _CHECKSUM_BYTES
