"""Shows how much text has been read: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import pyarrow as pa
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from beam_pipelines import terminal
from transforms.quantities import format_size


class TextBar:
    """Moves on as text is read."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def follow(self, batches: Iterable[pa.LargeStringArray], then: str) -> Iterator[pa.LargeStringArray]:
        """The batches as they are read, and what is done after the last."""
        read = 0
        for batch in batches:
            yield batch
            read += batch.nbytes
            self._progress.update(self._task, completed=read, amount=format_size(read))
        self._progress.update(self._task, description=then, total=None)


@contextlib.contextmanager
def text_progress(what: str, total: int | None, *, quiet: bool) -> Iterator[TextBar]:
    """Shows a bar while the block runs: `what` is done to a text of `total` bytes, or of nobody knows how many."""
    console = terminal.console()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"), TimeElapsedColumn())
    disable = quiet or not console.is_terminal
    with Progress(*columns, console=console, disable=disable, redirect_stdout=False, redirect_stderr=False) as progress:
        yield TextBar(progress, progress.add_task(what, total=total, amount=""))
