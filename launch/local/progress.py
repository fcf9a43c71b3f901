"""Shows how a run goes: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from launch.local.log import History

_LOGGER = logging.getLogger(__name__)

_LINE_EVERY_S = 30.0


@contextlib.contextmanager
def follow_steps(name: str, steps: int | None) -> Iterator[Callable[[History], None]]:
    """Gives a function that shows how far a run of so many steps is."""
    console = Console()
    if not console.is_terminal:
        yield _Lines(name, steps)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[what]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as progress:
        bar = progress.add_task(name, total=steps, what="starting, compiling")

        def show(history: History) -> None:
            if history.steps:
                progress.update(bar, completed=history.steps[-1].number + 1, what=_described(history))

        yield show


class _Lines:
    """A line every half minute, and one for the first step."""

    def __init__(self, name: str, steps: int | None) -> None:
        self._name, self._of = name, f" of {steps}" if steps is not None else ""
        self._next, self._last = time.monotonic(), -1

    def __call__(self, history: History) -> None:
        now = time.monotonic()
        if now < self._next or not history.steps or history.steps[-1].number == self._last:
            return
        self._next, self._last = now + _LINE_EVERY_S, history.steps[-1].number
        _LOGGER.info("%s: step %d%s, %s", self._name, self._last + 1, self._of, _described(history))


def _described(history: History) -> str:
    rate = history.tokens_per_second()
    return f"loss {history.steps[-1].loss:.3f}" + (f", {rate:,.0f} tokens a second" if rate else "")
