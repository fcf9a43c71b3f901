"""Shows how a work gets on: bars on a terminal, plain lines elsewhere. All commands that take long use this.

A `Display` is given frames, the state of the work at a moment. `Bar` makes them for work that this process does itself;
`Display.follow` asks for them a few times a second, for work that others do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from transforms.errors import BroetchenError, without_controls
from transforms.quantities import format_short, format_size

_LOGGER = logging.getLogger(__name__)

INTERVAL_S, REMOTE_INTERVAL_S = 0.25, 10.0
"""How often a work is looked at, on this machine and where each look asks a service."""

_LINE_INTERVAL_S = 30.0
_DRAW_INTERVAL_S = 0.1
# Long enough to be even where a worker tells of whole minutes' work at once, and short enough to see it get slower.
_WINDOW_S = 120.0
# Looking takes time as well: of a folder of many thousand files, or in a bucket.
_LOOK_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Unit:
    """A unit of work.

    Attributes:
        format: writes a number of it.
        word: the word after that number.
        rate: the text after a number of it in a second.
    """

    format: Callable[[float], str]
    word: str
    rate: str

    def amount(self, number: float) -> str:
        """A number of it, in words."""
        return f"{self.format(number)} {self.word}".rstrip()


TOKENS = Unit(format_short, "tokens", " tok/s")
BYTES = Unit(lambda number: format_size(round(number)), "", "/s")


def counted(word: str) -> Unit:
    """Whole things of a name, as "records"."""
    return Unit(lambda number: f"{round(number):,}", word, f" {word}/s")


@dataclasses.dataclass(frozen=True)
class Row:
    """One bar.

    Attributes:
        done, total: in the unit of the display; of a total of None nobody knows.
        note: the text behind the bar.
        ended: whether nothing is left to do there, not even work that is not counted.
    """

    name: str
    done: float
    total: float | None
    note: str = ""
    ended: bool = False


@dataclasses.dataclass(frozen=True)
class Frame:
    """The state of a work at a moment.

    Attributes:
        state: the step at work, in a word or two.
        whole: all of the work.
        parts: of the whole, where it has some.
        work: the work of this run alone, for its rate; None where all that is done is its work.
        line: the text of a plain line instead of `whole`.
    """

    state: str
    whole: Row
    parts: Sequence[Row] = ()
    work: float | None = None
    line: str | None = None


class Meter:
    """The rate of a work over its last minutes, from sums that it is told. Until the first work is done, no time runs.

    >>> meter = Meter()
    >>> for second, work in enumerate([0, 0, 0, 10, 20]):
    ...     meter.tell(second, work)
    >>> meter.rate()
    10.0
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def tell(self, now: float, work: float) -> None:
        """Takes the sum of the work at a time, in seconds."""
        if len(self._seen) == 1 and work <= self._seen[0][1]:
            self._seen.clear()
        self._seen.append((now, work))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _WINDOW_S:
            self._seen.popleft()

    def rate(self) -> float | None:
        """Work a second; None where nothing was done yet."""
        (first, before), (last, now) = self._seen[0], self._seen[-1]
        return (now - before) / (last - first) if last > first and now > before else None


def time_left(seconds: float) -> str:
    """A time to come, in words.

    >>> time_left(4.2), time_left(100), time_left(8000), time_left(400_000)
    ('5 s left', '2 min left', '2.2 h left', '4.6 days left')
    """
    if seconds < 90:
        return f"{int(seconds) + 1} s left"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min left"
    return f"{seconds / 3600:.1f} h left" if seconds < 172_800 else f"{seconds / 86400:.1f} days left"


class Display:
    """Shows frames, from any thread; make it by `display`."""

    def __init__(self, title: str, unit: Unit, draw: Callable[[Frame, str, float | None], None]) -> None:
        self._title, self._unit, self._draw = title, unit, draw
        self._meter, self._lock = Meter(), threading.Lock()

    def show(self, frame: Frame) -> None:
        """Shows this from now on."""
        with self._lock:
            whole = frame.whole
            self._meter.tell(time.monotonic(), whole.done if frame.work is None else frame.work)
            rate = self._meter.rate()
            left = None if whole.total is None else whole.total - whole.done
            # Once all is done, the rest is no work of this unit.
            pace = "" if rate is None or left == 0 else f"{self._unit.format(rate)}{self._unit.rate}"
            self._draw(frame, pace, left / rate if rate and left else None)

    def say(self, state: str) -> None:
        """Shows the step at work, before there is anything to count."""
        self.show(Frame(state, Row(self._title, 0, None, state)))

    @contextlib.contextmanager
    def follow(self, look: Callable[[], Frame], interval_s: float = INTERVAL_S) -> Iterator[None]:
        """Shows the frames of `look` while the block runs, and once more at its end. Starts a thread."""
        ended = threading.Event()

        def look_again() -> float:
            started = time.monotonic()
            # A file may go while it is read; the next look sees its fate. Progress never ends a job.
            with contextlib.suppress(BroetchenError, OSError, ValueError):
                self.show(look())
            return time.monotonic() - started

        def poll() -> None:
            took = look_again()
            while not ended.wait(max(interval_s, took / _LOOK_SHARE)):
                took = look_again()

        thread = threading.Thread(target=poll, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            look_again()


class Bar:
    """One bar for work that this process does."""

    def __init__(self, shown: Display, name: str, total: float | None, unit: Unit) -> None:
        self._display, self._name, self._unit = shown, name, unit
        self._done, self._total, self._state = 0.0, total, name
        self._lock = threading.Lock()
        self._next = 0.0
        self._show()

    def advance(self, done: float, total: float | None = None) -> None:
        """So much more is done, of so much, if that is known now. From any thread."""
        with self._lock:
            self._done += done
            self._total = self._total if total is None else total
            if time.monotonic() < self._next and self._done != self._total:
                return
            self._next = time.monotonic() + _DRAW_INTERVAL_S
            self._show()

    def state(self, state: str) -> None:
        """Something is done now of which nobody knows how much there is."""
        with self._lock:
            self._state, self._total = state, None
            self._show()

    def _show(self) -> None:
        total = "" if self._total is None else f" of {self._unit.amount(self._total)}"
        done = self._unit.format(self._done) if total else self._unit.amount(self._done)
        note = f"{done}{total}" if self._done else ""
        self._display.show(Frame(self._state, Row(self._state, self._done, self._total, note)))


@contextlib.contextmanager
def display(title: str, unit: Unit, *, console: Console, quiet: bool, first: str | None = None) -> Iterator[Display]:
    """A display on a console while the block runs: bars on a terminal, else lines by this module's logger.

    Its first line is there at once. It starts no thread, so that a process may still be forked.

    Args:
        title: the name of the work, as "verify".
        first: the first state; None shows nothing yet.
        quiet: to show nothing at all.
    """
    if quiet:
        yield Display(title, unit, lambda frame, pace, left_s: None)
        return
    if not console.is_terminal:
        shown = Display(title, unit, _Lines(title, unit))
        if first:
            shown.say(first)
        yield shown
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[percent]}"),
        TextColumn("{task.fields[note]}"),
        TextColumn("{task.fields[pace]}", style="cyan"),
        TextColumn("{task.fields[left]}"),
    )
    # Rich would show on the terminal the prints of others to `sys.stderr`, tracebacks of Beam's among them.
    with Progress(
        *columns, console=console, redirect_stdout=False, redirect_stderr=False, auto_refresh=False
    ) as progress:
        shown = Display(title, unit, _Bars(progress))
        if first:
            shown.say(first)
        yield shown


@contextlib.contextmanager
def bar(name: str, total: float | None, unit: Unit, *, console: Console, quiet: bool) -> Iterator[Bar]:
    """A display of one bar."""
    with display(name, unit, console=console, quiet=quiet) as shown:
        yield Bar(shown, name, total, unit)


class _Bars:
    """Draws on a terminal: a bar for each part, and one for all, with rate and time to come."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: list[TaskID] = []

    def __call__(self, frame: Frame, pace: str, left_s: float | None) -> None:
        rows = [*frame.parts, frame.whole]
        while len(self._tasks) < len(rows):
            self._tasks.append(self._progress.add_task("", total=None, percent="", note="", pace="", left=""))
        for task, row in zip(self._tasks, rows, strict=False):
            is_whole = row is frame.whole
            name = escape(without_controls(row.name))
            self._progress.update(
                task,
                description=f"[bold]{name}" if is_whole and frame.parts else name,
                completed=row.done,
                total=row.total or None,
                percent=f"{row.done / row.total:4.0%}".replace("%", " %") if row.total else "",
                note=escape(row.note),
                pace=pace if is_whole else "",
                left=time_left(left_s) if is_whole and left_s is not None else "",
            )
        self._progress.refresh()


class _Lines:
    """Says each state as it begins, when a part is done, and every half minute how far all is."""

    def __init__(self, title: str, unit: Unit) -> None:
        self._title, self._unit = title, unit
        self._state = ""
        self._ended: dict[str, bool] = {}
        self._next = time.monotonic() + _LINE_INTERVAL_S

    def __call__(self, frame: Frame, pace: str, left_s: float | None) -> None:
        for row in frame.parts:
            # Of a part that had ended before the first look there is nothing to say.
            if row.ended and not self._ended.setdefault(row.name, row.ended):
                _LOGGER.info("%s: %s", row.name, row.note)
            self._ended[row.name] = row.ended
        now = time.monotonic()
        if frame.state != self._state:
            self._state = frame.state
            said = frame.line or frame.state
            _LOGGER.info("%s", said if said == self._title else f"{self._title}: {said}")
            return
        if now < self._next:
            return
        self._next = now + _LINE_INTERVAL_S
        whole = frame.whole
        amount = frame.line or self._amount(whole)
        parts = [amount, pace, "" if left_s is None else time_left(left_s)]
        _LOGGER.info("%s: %s", self._title, ", ".join(filter(None, parts)))

    def _amount(self, row: Row) -> str:
        if not row.total:
            return row.note or self._state
        return f"{self._unit.format(row.done)} of {self._unit.amount(row.total)} ({row.done / row.total:.0%})".replace(
            "%)", " %)"
        )
