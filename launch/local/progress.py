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
    of = f" of {steps}" if steps is not None else ""
    with display(name, counted("steps"), console=Console(), quiet=quiet, first="starting, compiling") as shown:

        def show(history: History) -> None:
            if history.steps:
                done, how = history.steps[-1].number + 1, _described(history)
                whole = Row(name, done, steps, f"step {done}{of}, {how}")
                shown.show(Frame("training", whole, line=whole.note))

        yield show


def _described(history: History) -> str:
    rate = history.tokens_per_second()
    return f"loss {history.steps[-1].loss:.3f}" + (f", {rate:,.0f} tokens a second" if rate else "")
