"""Progress of commands on standard error, and of jobs whose workers keep tallies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from beam_pipelines.console import terminal
from transforms.files import storage
from transforms.progress import display as shows
from transforms.progress.display import INTERVAL_S, REMOTE_INTERVAL_S, Bar, Display, Frame, Row, Unit
from transforms.progress.tally import TallyReader


def display(
    title: str, unit: Unit, *, quiet: bool, first: str | None = None
) -> contextlib.AbstractContextManager[Display]:
    """See `transforms.progress.display.display`."""
    return shows.display(title, unit, console=terminal.console(), quiet=quiet, first=first)


def bar(name: str, total: float | None, unit: Unit, *, quiet: bool) -> contextlib.AbstractContextManager[Bar]:
    """See `transforms.progress.display.bar`."""
    return shows.bar(name, total, unit, console=terminal.console(), quiet=quiet)


@contextlib.contextmanager
def follow_tallies(
    progress: Display, folder: str, doing: str, unit: Unit, *, total: int | None = None
) -> Iterator[None]:
    """Shows the sum of the tallies in a folder while the block runs. Starts a thread.

    Args:
        progress: the display that shows it.
        folder: that the workers share.
        doing: the work, as "reading".
        unit: of the tallies.
        total: of the work; None where the workers find out.
    """
    reader = TallyReader(folder)

    def look() -> Frame:
        found = reader.read()
        of = total if total is not None else found.expected or None
        done = found.done if of is None else min(found.done, of)
        amount = unit.amount(done) if of is None else f"{unit.format(done)} of {unit.amount(of)}"
        return Frame(doing, Row(doing, done, of, amount))

    with progress.follow(look, INTERVAL_S if storage.is_local(folder) else REMOTE_INTERVAL_S):
        yield
