"""The hostile input campaign: seeded cases of broken, odd and malicious inputs, and how each of them ends.

    python -m tests.campaign.hostile --seed N --cases 1000

Each case runs in a process beside this one, by the build's own steps and now and then by Beam, and some are put to the
command line. None may end in another error than ours, hang, take memory without bounds, or leave a dataset behind that
is not what the source holds. A case that fails is named with a seed, and runs alone by `--only KIND --case SEED`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.campaign import hostile_configs, hostile_outputs, hostile_parquet, hostile_tokenizers
from tests.campaign.hostile_case import CaseKind, Ending, Outcome
from tests.campaign.hostile_command import COMMANDS
from tests.campaign.hostile_worker import Result, Worker
from tests.campaign.sources import kinds as sources
from tests.campaign.untrusted import kinds as untrusted

KINDS: Sequence[CaseKind] = [
    *hostile_parquet.KINDS,
    *hostile_configs.KINDS,
    *hostile_tokenizers.KINDS,
    *hostile_outputs.KINDS,
    *untrusted.KINDS,
    *sources.KINDS,
]
_ENDINGS: Sequence[Ending] = ("error", "skipped", "built", "wrong")


@dataclasses.dataclass(frozen=True)
class Campaign:
    """The trials and their ends."""

    results: Sequence[Result]
    seconds: float

    @property
    def wrong(self) -> list[Result]:
        return [result for result in self.results if result.outcome.ending == "wrong"]


def plan(seed: int, cases: int, *, heavy: int = 4, only: Sequence[str] = ("",)) -> list[tuple[int, str]]:
    """The cases of a campaign, as (number of the kind, seed), by the kinds' weights; `heavy` of each heavy kind.

    `only` are parts of the kinds' names.
    """
    chance = random.Random(seed)
    chosen = [(number, kind) for number, kind in enumerate(KINDS) if any(part in kind.name for part in only)]
    light = [number for number, kind in chosen if not kind.heavy]
    heavies = [number for number, kind in chosen if kind.heavy for _ in range(heavy)]
    # One of each kind, and the others by weight.
    left = max(0, cases - len(light) - len(heavies)) if light else 0
    drawn = chance.choices(light, [KINDS[number].weight for number in light], k=left) if left else []
    numbers = [*light, *drawn, *heavies][:cases] if cases >= len(light) else light[:cases]
    return [(number, f"{seed}-{place}") for place, number in enumerate(numbers)]


def run(planned: Sequence[tuple[int, str]], *, commands: int = 0, seed: int = 0, quiet: bool = False) -> Campaign:
    """Runs planned cases, then `commands` by the command line; Ctrl-C ends it with the results so far."""
    started = time.monotonic()
    results: list[Result] = []
    with contextlib.suppress(KeyboardInterrupt), Worker(KINDS) as worker:
        for number, case in track(planned, "cases", console=Console(stderr=True), disable=quiet):
            results.append(worker.run(number, case))
        results += _by_command(commands, seed, quiet=quiet)
    return Campaign(results, time.monotonic() - started)


def _by_command(commands: int, seed: int, *, quiet: bool) -> Iterator[Result]:
    chance = random.Random(f"commands {seed}")
    chosen = [list(COMMANDS)[place % len(COMMANDS)] for place in range(commands)]
    for place, name in enumerate(track(chosen, "commands", console=Console(stderr=True), disable=quiet)):
        with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
            outcome: Outcome = COMMANDS[name](chance, Path(folder))
        yield Result(f"command line: {name}", f"{seed}-{place}", outcome, 0)


def table(campaign: Campaign) -> Table:
    """The table of trials and their ends, with the most that the process grew by meanwhile."""
    by_kind: dict[str, list[Result]] = collections.defaultdict(list)
    for result in campaign.results:
        by_kind[result.kind].append(result)
    shown = Table(title=f"{len(campaign.results):,} cases in {campaign.seconds:,.0f} s")
    shown.add_column("input")
    for heading in ("cases", "clear error", "built, rows left out", "built whole", "wrong", "most memory, MiB"):
        shown.add_column(heading, justify="right")
    for kind, results in by_kind.items():
        endings = collections.Counter(result.outcome.ending for result in results)
        counts = [f"{endings[ending]:,}" if endings[ending] else "" for ending in _ENDINGS]
        memory = max(result.grown_bytes for result in results) >> 20
        shown.add_row(kind, f"{len(results):,}", *counts, f"{memory:,}" if memory else "")
    endings = collections.Counter(result.outcome.ending for result in campaign.results)
    shown.add_section()
    shown.add_row("all", f"{len(campaign.results):,}", *(f"{endings[ending]:,}" for ending in _ENDINGS), "")
    return shown


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.hostile", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of all cases")
    parser.add_argument("--cases", type=int, default=1000, help="how many")
    parser.add_argument("--heavy", type=int, default=4, help="how many of each kind that takes seconds by itself")
    parser.add_argument("--commands", type=int, default=10, help="how many more to put to the command line")
    parser.add_argument(
        "--only", default=[""], nargs="+", metavar="KIND", help="only kinds whose names hold one of these"
    )
    parser.add_argument("--case", metavar="SEED", help="one case of --only, by the seed that a failure names")
    given = parser.parse_args()
    planned = plan(given.seed, given.cases, heavy=given.heavy, only=given.only)
    if given.case is not None:
        planned = [(number, given.case) for number in dict(planned)]
    campaign = run(planned, commands=0 if given.case or any(given.only) else given.commands, seed=given.seed)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table(campaign))
    for result in campaign.wrong:
        console.print(f"{result.kind}, --case {result.seed}: {result.outcome.detail}", markup=False, soft_wrap=True)
    if given.case is not None:
        for result in campaign.results:
            console.print(f"{result.kind}: {result.outcome}", markup=False, soft_wrap=True)
    return 1 if campaign.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
