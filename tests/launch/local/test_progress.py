"""How a run's progress is told."""

from __future__ import annotations

from launch.local.log import History, Step
from launch.local.progress import steps_frame


def test_steps_of_an_earlier_start_are_no_work_of_this_one() -> None:
    steps = tuple(
        Step(number=number, start=int(number > 499), time=float(number), loss=2.0, learning_rate=0.1, tokens=64)
        for number in range(502)
    )
    frame = steps_frame("run", History(steps, {}, 2), 1000)
    assert (frame.whole.done, frame.whole.total) == (502, 1000)
    assert frame.work == 2
    assert frame.line is not None
    assert frame.line.startswith("step 502 of 1000, loss 2.000")
