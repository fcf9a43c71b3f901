"""Shows how a run goes: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console

from launch.local.log import History
from transforms.progress.display import Frame, Row, counted, display


@contextlib.contextmanager
def follow_steps(name: str, steps: int | None, *, quiet: bool = False) -> Iterator[Callable[[History], None]]:
    """Gives a function that shows how far a run of so many steps is; with `quiet`, nothing is shown."""
    with display(name, counted("steps"), console=Console(), quiet=quiet, first="starting, compiling") as progress:

        def show(history: History) -> None:
            if history.steps:
                progress.show(steps_frame(name, history, steps))

        yield show


def steps_frame(name: str, history: History, steps: int | None) -> Frame:
    """How far a run is that has logged steps. Steps of earlier starts are done, but are no work of this one."""
    last, of = history.steps[-1], f" of {steps}" if steps is not None else ""
    whole = Row(name, last.number + 1, steps, f"step {last.number + 1}{of}, {_described(history)}")
    own = sum(step.start == last.start for step in history.steps)
    return Frame("training", whole, work=own, line=whole.note)


def _described(history: History) -> str:
    rate = history.tokens_per_second()
    return f"loss {history.steps[-1].loss:.3f}" + (f", {rate:,.0f} tokens a second" if rate else "")
