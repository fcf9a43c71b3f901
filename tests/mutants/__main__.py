"""Mutation testing of the core: which small changes of it no near test sees.

    python -m tests.mutants                                          # all of the core
    python -m tests.mutants transforms/budget/text_cut.py --again    # the survivors of the last time, in one module

Near tests are those of the module's room that are not slow, and the examples in its docstrings. A mutant that none of
them catches has survived, unless its entry in `equivalent/` says why nobody could tell it from the module. Survivors
are kept in `.mutants/`, so that `--again` tries those alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from tests.mutants import equivalents
from tests.mutants.changes import Mutant, mutants_of
from tests.mutants.near import NearTests, find_near
from tests.mutants.trials import Trial, preload, run
from tests.support.documents import ROOT

CORE = (
    "transforms/budget/apportion.py",
    "transforms/budget/text_cut.py",
    "transforms/budget/token_budget.py",
    "transforms/recipe/plan.py",
    "transforms/recipe/shard_plan.py",
    "transforms/arrayrecord/records.py",
    "transforms/building/cut.py",
    "transforms/building/publish.py",
    "transforms/building/work_folder.py",
    "transforms/dataset/manifest.py",
    "transforms/dataset/verify.py",
    "transforms/locks/gcs.py",
    "transforms/locks/interruption.py",
    "transforms/locks/output.py",
    "transforms/locks/owner.py",
    "transforms/files/gcs_objects.py",
    "transforms/segments/code_points.py",
    "transforms/encoding/gigatoken.py",
    "transforms/encoding/pool.py",
    "launch/checks/findings.py",
    "launch/mixture/weights.py",
)
WANTED = 0.95

_KEPT = ROOT / ".mutants"
_SLACK_S = 30

_CONSOLE = Console(stderr=True)


@dataclasses.dataclass(frozen=True)
class Score:
    """How the mutants of a module ended.

    Attributes:
        tried: how many there are.
        equivalent: of them, those that do the same and survived.
        survivors: the others that survived.
        tests: near tests of the module.
        seconds: that it took.
    """

    module: str
    tried: int
    equivalent: int
    survivors: Sequence[Mutant]
    tests: int
    seconds: float

    @property
    def killed(self) -> float:
        """The share of the mutants that are not equivalent."""
        real = self.tried - self.equivalent
        return 1 - len(self.survivors) / real if real else 1.0


def try_module(module: str, near: NearTests, jobs: int, *, again: bool) -> Score:
    """Tries all mutants of a module, or (`again`) those that survived the last time."""
    started = time.monotonic()
    mutants = mutants_of(ROOT, module)
    kept = _KEPT / f"{module.replace('/', '.')}.json"
    if again and kept.exists():
        names = set(json.loads(kept.read_text()))
        mutants = [mutant for mutant in mutants if _name(mutant) in names]
    alive = _survivors(module, mutants, near, jobs)
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps([_name(mutant) for mutant in alive], indent=1, ensure_ascii=False))
    known = [mutant for mutant in alive if equivalents.find(mutant)]
    others = [mutant for mutant in alive if mutant not in known]
    for one in equivalents.equivalents(module) if not again else ():
        if not any(equivalents.find(mutant) == one for mutant in known):
            _CONSOLE.print(f"{module}: no longer survives, or is there: {one}", style="yellow", markup=False)
    return Score(module, len(mutants), len(known), others, len(near.all()), time.monotonic() - started)


def _name(mutant: Mutant) -> str:
    return f"{mutant.function}: {mutant.before} -> {mutant.after}"


def _survivors(module: str, mutants: Sequence[Mutant], near: NearTests, jobs: int) -> list[Mutant]:
    """Tries the tests that reach the line, and then all others, as kept results may hide that a test reaches it."""
    first = {mutant: near.of(mutant.line) for mutant in mutants}
    alive = [mutant for mutant in mutants if not first[mutant]]
    with Progress(console=_CONSOLE) as progress:
        task = progress.add_task(module, total=len(mutants))
        progress.advance(task, len(alive))
        alive += _round({mutant: tests for mutant, tests in first.items() if tests}, near, jobs, progress, task)
        rest = {mutant: [test for test in near.all() if test not in first[mutant]] for mutant in alive}
        progress.reset(task, total=len(alive), description=f"{module}, survivors")
        progress.advance(task, sum(not tests for tests in rest.values()))
        done = [mutant for mutant, tests in rest.items() if not tests]
        done += _round({mutant: tests for mutant, tests in rest.items() if tests}, near, jobs, progress, task)
    return sorted(done, key=lambda mutant: mutant.line)


def _round(
    tests: dict[Mutant, list[str]], near: NearTests, jobs: int, progress: Progress, task: object
) -> list[Mutant]:
    trials = {
        Trial(mutant.module, tuple(names), _SLACK_S + 5 * near.seconds(names), mutant.source): mutant
        for mutant, names in tests.items()
    }
    alive = []
    for trial, ended in run(trials, jobs):
        progress.advance(task)  # type: ignore[arg-type]
        if ended.how == "passed":
            alive.append(trials[trial])
    return alive


def scores(modules: Sequence[str], jobs: int, *, again: bool) -> Iterator[Score]:
    """The scores of modules, one room after another."""
    preload({str(Path("tests", module).parent) for module in modules})
    for _, room in itertools.groupby(modules, key=lambda module: Path(module).parent):
        members = list(room)
        near = find_near(members)
        for module in members:
            yield try_module(module, near[module], jobs, again=again)


def table(done: Sequence[Score]) -> str:
    """The table in Markdown, for docs/campaigns.md."""
    lines = [
        "| module | near tests | mutants | equivalent | caught | survived | share | minutes |",
        f"|---|{'---:|' * 7}",
    ]
    lines += [_row(f"`{one.module}`", [one]) for one in done]
    return "\n".join([*lines, _row("all", done)])


def _row(name: str, done: Sequence[Score]) -> str:
    tried, same = sum(one.tried for one in done), sum(one.equivalent for one in done)
    survived = sum(len(one.survivors) for one in done)
    whole = Score("", tried, same, [mutant for one in done for mutant in one.survivors], 0, 0)
    numbers = [sum(one.tests for one in done), tried, same, tried - same - survived, survived]
    minutes = sum(one.seconds for one in done) / 60
    return f"| {name} | " + " | ".join(f"{number:,}" for number in numbers) + f" | {whole.killed:.1%} | {minutes:.1f} |"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="paths from the root; by default all of the core")
    parser.add_argument("--again", action="store_true", help="try only the survivors of the last time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trials at a time (default: %(default)s)")
    given = parser.parse_args()
    done = []
    for score in scores(given.modules or CORE, given.jobs, again=given.again):
        done.append(score)
        for mutant in score.survivors:
            print(mutant)
        sys.stdout.flush()
    print("\n" + table(done))
    return 0 if all(score.killed >= WANTED for score in done) else 1


if __name__ == "__main__":
    sys.exit(main())
