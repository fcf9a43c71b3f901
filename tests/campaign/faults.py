"""Kills and other faults, by the hundred: after each, the build is run again and held against an undisturbed one.

    python -m tests.campaign.faults --seed 1 --kills 200

Prints a table of what was tried and what happened, also after Ctrl-C, and ends with 1 if any promise was broken. The
same seed makes the same trials, of which each can be repeated alone with --only NUMBER; where within a moment a kill
falls depends on the machine all the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from rich import box
from rich.console import Console
from rich.table import Table

from tests.campaign import fault_trials as trials
from tests.campaign.fault_bench import FaultBench, fault_bench
from tests.campaign.fault_trials import Trial
from tests.campaign.rivals import trials as rivals

# Of every 20 kills, by what they cost and how many moments there are; then the others, each so many times.
KILLS: tuple[tuple[str, Trial, int], ...] = (
    ("killed at an operation on a file", trials.kill_at_operation, 9),
    ("killed at any time", trials.kill_at_any_time, 4),
    ("killed at a request to the bucket", trials.kill_at_request, 4),
    ("killed amid faults of the bucket", trials.kill_amid_bucket_faults, 1),
    ("worker processes killed", trials.kill_with_workers, 1),
    ("worker processes killed", trials.kill_driver_alone, 1),
    ("worker processes killed", trials.kill_one_worker, 1),
)
OTHERS: tuple[tuple[str, Trial], ...] = (
    ("no space", trials.largest_file),
    ("no space", trials.full_disk),
    ("read-only output", trials.read_only),
    ("two builds at one output", trials.two_builds),
    ("stale lock", trials.stale_lock),
    ("clock jumps", trials.clock_jumps),
    *[("late attempt", rivals.late_attempt)] * 4,
    *[("work files of zeros", rivals.zeros)] * 3,
    *[("then another budget", rivals.another_budget)] * 3,
    *[("two configs at one output", rivals.two_configs)] * 3,
    *[("steps done again", rivals.replays)] * 2,
    ("two downloads", rivals.two_downloads),
)


@dataclasses.dataclass(frozen=True)
class Tried:
    """One trial: `problem` is None where all promises were kept, and `skipped` says what this machine cannot do."""

    number: int
    kind: str
    moment: str
    kills: int
    seconds: float
    problem: str | None = None
    skipped: str | None = None


def schedule() -> Iterator[tuple[str, Trial]]:
    """The kinds of trials, without an end: kills in their proportion, then one of each of the others."""
    while True:
        for kind, trial, times in KILLS:
            yield from [(kind, trial)] * times
        yield from OTHERS


def run_campaign(
    bench: FaultBench,
    seed: int,
    kills: int,
    report: Callable[[Tried], None],
    plan: Iterator[tuple[str, Trial]] | None = None,
    only: int | None = None,
) -> list[Tried]:
    """Tries what `plan` says, `schedule` by default, until it ends, `kills` have come in time, or Ctrl-C."""
    found: list[Tried] = []
    for number, (kind, trial) in enumerate(plan or schedule()):
        if only is not None and number != only:
            continue
        chance, started = random.Random(f"{seed}:{number}"), time.monotonic()
        moment, hit, problem, skipped = trial.__name__.replace("_", " "), 0, None, None
        try:
            done = trial(bench, chance, f"trial-{number}")
            moment, hit = done.moment, done.kills
        except KeyboardInterrupt:
            break  # The table has the trials until then.
        except pytest.skip.Exception as reason:
            skipped = str(reason)
        except Exception as error:  # any exception is one that the campaign is looking for
            problem = "".join(traceback.format_exception(error))
        tried = Tried(number, kind, moment, hit, time.monotonic() - started, problem, skipped)
        found.append(tried)
        report(tried)
        if problem is None:
            bench.clear(f"trial-{number}")
        if only is not None or sum(one.kills for one in found) >= kills:
            break
    return found


def table(tried: Sequence[Tried]) -> Table:
    """The table of trials, by kind and moment."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("fault", "moment", "trials", "kills", "as undisturbed", "broken", "s each"):
        shown.add_column(column, justify="left" if column in ("fault", "moment") else "right")
    ordered = sorted(tried, key=lambda one: (one.kind, one.moment))
    for (kind, moment), group in itertools.groupby(ordered, key=lambda one: (one.kind, one.moment)):
        rows = list(group)
        shown.add_row(kind, moment, *_figures(rows))
    shown.add_section()
    shown.add_row("all", "", *_figures(tried))
    return shown


def _figures(rows: Sequence[Tried]) -> list[str]:
    done = [row for row in rows if row.skipped is None]
    broken = sum(row.problem is not None for row in done)
    seconds = sum(row.seconds for row in rows) / len(rows)
    kills = sum(row.kills for row in rows)
    return [str(len(done)), str(kills), str(len(done) - broken), str(broken), f"{seconds:.1f}"]


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.campaign.faults", description=__doc__.split("\n")[0])
    options.add_argument("--seed", type=int, default=1, help="decides on all that is left to chance")
    options.add_argument("--kills", type=int, default=200, help="how many are to come in time (default: 200)")
    options.add_argument("--only", type=int, metavar="NUMBER", help="only the trial of this number")
    options.add_argument("--folder", type=Path, help="for scratch files; by default a temporary one")
    given = options.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)

    def report(tried: Tried) -> None:
        state = tried.skipped or ("broken" if tried.problem else "as undisturbed")
        line = f"{tried.number:4d}  {tried.kind}: {tried.moment}; {tried.kills} kills: {state} ({tried.seconds:.1f} s)"
        console.print(line, markup=False, highlight=False)
        if tried.problem:
            console.print(tried.problem, markup=False)

    with (
        tempfile.TemporaryDirectory(prefix="broetchen-faults-", dir=given.folder) as folder,
        fault_bench(Path(folder)) as bench,
    ):
        tried = run_campaign(bench, given.seed, given.kills, report, only=given.only)
    console.print(table(tried))
    broken = [one.number for one in tried if one.problem]
    if broken:
        sys.exit(f"broken with seed {given.seed}: trials {', '.join(map(str, broken))}")


if __name__ == "__main__":
    main()
