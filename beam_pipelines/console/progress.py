"""Shows how a build gets on: bars on a terminal, log lines elsewhere."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from beam_pipelines.console import terminal
from transforms.building.status import DatasetStatus, StatusReader
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.quantities import format_short, format_size
from transforms.recipe.spec import DatasetSpec

_LOGGER = logging.getLogger(__name__)


_LOCAL_INTERVAL_S, _REMOTE_INTERVAL_S, _LOG_INTERVAL_S = 0.25, 10.0, 30.0

Statuses = Mapping[str, DatasetStatus]


@contextlib.contextmanager
def follow_build(specs: Sequence[DatasetSpec], *, quiet: bool) -> Iterator[None]:
    """Shows the progress of a build while the block runs."""
    if quiet:
        yield
        return
    console = terminal.console()
    shown = _on_terminal(console, specs) if console.is_terminal else contextlib.nullcontext(_LogLines(specs))
    with shown as show, _polling(specs, show):
        yield


@contextlib.contextmanager
def _polling(specs: Sequence[DatasetSpec], show: Callable[[Statuses], None]) -> Iterator[None]:
    readers = {spec.name: StatusReader(spec) for spec in specs}
    interval = _LOCAL_INTERVAL_S if all(storage.is_local(spec.output) for spec in specs) else _REMOTE_INTERVAL_S
    done = threading.Event()

    def poll() -> None:
        while not done.wait(interval):
            # A file may go while it is read; the next look sees what has become of it. Progress never ends a build.
            with contextlib.suppress(BroetchenError, OSError, ValueError):
                show({name: reader.read() for name, reader in readers.items()})

    thread = threading.Thread(target=poll, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(BroetchenError, OSError, ValueError):
            show({name: reader.read() for name, reader in readers.items()})


class _TokenRate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{format_short(speed)} tok/s" if speed else "", style="cyan")


@contextlib.contextmanager
def _on_terminal(console: Console, specs: Sequence[DatasetSpec]) -> Iterator[Callable[[Statuses], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[amount]}"),
        _TokenRate(),
        TimeRemainingColumn(),
    )
    # Rich would show on the terminal what others print to `sys.stderr`, tracebacks of Beam's among it.
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as progress:
        need = {spec.name: spec.need for spec in specs}
        bars = {name: progress.add_task(name, total=tokens, amount="planning") for name, tokens in need.items()}
        total = progress.add_task("[bold]all", total=sum(need.values()), amount="")

        def show(statuses: Statuses) -> None:
            work = {name: work_of(status, need[name]) for name, status in statuses.items()}
            for name, status in statuses.items():
                done, of = work[name]
                progress.update(bars[name], completed=done, total=of, amount=_amount(status))
            finished = sum(status.finished for status in statuses.values())
            done, of = (sum(numbers) for numbers in zip(*work.values(), strict=True))
            progress.update(total, completed=done, total=of, amount=f"{finished}/{len(statuses)} datasets")

        yield show


def work_of(status: DatasetStatus, need: int) -> tuple[int, int]:
    """How many tokens are done, and of how many; those that are taken over are no work, and would falsify the rate.

    A finished dataset has less than it needs where its source is short, or to be repeated.
    """
    if status.finished:
        need = status.tokens
    if not status.taken_over:
        return status.tokens, need
    work = max(1, need - status.taken_over)
    return (work if status.finished else min(work, max(0, status.tokens - status.taken_over))), work


def _amount(status: DatasetStatus) -> str:
    if not status.tokens:
        return "planning"
    return f"{format_short(status.tokens)} tokens, {'published' if status.finished else f'{status.shards} shards'}"


class _LogLines:
    """One line every half minute, and one when a dataset is finished."""

    def __init__(self, specs: Sequence[DatasetSpec]) -> None:
        self._need = {spec.name: spec.need for spec in specs}
        self._last = time.monotonic()
        # When it was looked at first, and what an earlier run had done by then.
        self._started: tuple[float, int] | None = None
        self._finished: set[str] = set()

    def __call__(self, statuses: Statuses) -> None:
        now = time.monotonic()
        done = {name: work_of(status, self._need[name]) for name, status in statuses.items()}
        tokens, need = (sum(numbers) for numbers in zip(*done.values(), strict=True))
        started, already = self._started = self._started or (now, tokens)
        for name, status in statuses.items():
            if status.finished and name not in self._finished:
                self._finished.add(name)
                _LOGGER.info("%s: %s", name, _amount(status))
        if now - self._last < _LOG_INTERVAL_S:
            return
        self._last = now
        rate = (tokens - already) / (now - started)
        left = f", {(need - tokens) / rate / 60:.0f} min left" if rate else ""
        _LOGGER.info(
            "%s of %s tokens (%.0f %%), %s tok/s%s; %d of %d datasets published",
            format_short(tokens),
            format_short(need),
            100 * tokens / need,
            format_short(rate),
            left,
            len(self._finished),
            len(statuses),
        )


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
