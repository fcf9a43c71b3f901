"""The mistakes of new users, one after the other: the message, the exit code, and the seconds until then.

    python -m tests.campaign.mistakes --only source tokenizer

Each is made in a folder of its own and put to the installed command. None may end in a traceback or in words of a
library's, and each has to name the fault; those that do not are named below the table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.campaign.mistakes.cases import LOCAL, NETWORK, SERVICES, Mistake
from tests.campaign.mistakes.places import why_not
from tests.campaign.mistakes.trials import Told, made, services


def table(told: Iterable[Told]) -> Table:
    """The table of messages, one for each mistake."""
    shown = Table(title="mistakes", show_lines=True)
    shown.add_column("mistake", max_width=24)
    shown.add_column("message", overflow="fold")
    shown.add_column("code", justify="right")
    shown.add_column("s", justify="right")
    shown.add_column("CPU s", justify="right")
    for one in told:
        shown.add_row(one.mistake.name, one.message, str(one.code), f"{one.seconds:.1f}", f"{one.cpu_s:.1f}")
    return shown


def chosen(only: Sequence[str]) -> list[Mistake]:
    """The mistakes whose names hold one of `only`, or all."""
    return [one for one in (*LOCAL, *SERVICES, *NETWORK) if not only or any(part in one.name for part in only)]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.mistakes", description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only mistakes whose names hold these")
    given = parser.parse_args()
    errors, told, left_out = Console(stderr=True), [], {}
    with tempfile.TemporaryDirectory(prefix="mistakes-") as folder, services(Path(folder)) as there:
        for number, mistake in enumerate(track(chosen(given.only), "mistakes", console=errors)):
            if reason := why_not(mistake.place):
                left_out[mistake.name] = reason
                continue
            own = Path(folder, str(number))
            own.mkdir()
            told.append(made(mistake, own, there))
    console = Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False, highlight=False)
    console.print(table(told))
    for name, reason in left_out.items():
        console.print(f"left out: {name}: {reason}")
    bad = [one for one in told if one.wrong]
    for one in bad:
        console.print(f"not as it has to be: {one.mistake.name}: {'; '.join(one.wrong)}")
    console.print(f"{len(told)} mistakes, {len(bad)} of them not as they have to be")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
