"""``python -m benchmarks``, or ``make bench``: one corpus through ``broetchen build`` and its peers, side by side."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks.harness import report, same_work
from benchmarks.harness.contenders import CONTENDERS, Contender, Setting
from benchmarks.harness.corpus import Corpus, CorpusSpec, make_corpus
from benchmarks.harness.machine import machine, versions
from benchmarks.harness.measure import ContenderFailed, measure_apart
from benchmarks.harness.places import CACHE, ROOT, WARM_UP_MB
from benchmarks.harness.same_work import Reference, WrongWork

SCALING_FACTOR = 10


class Bench:
    """Runs contenders on corpora, checks what they wrote, and removes it."""

    def __init__(self, setting: Setting, budget_share: float, cache: Path, console: Console, keep: bool) -> None:
        self._setting = setting
        self._budget_share = budget_share
        self._cache = cache
        self._console = console
        self._keep = keep
        self._references: dict[Path, Reference] = {}

    def run(self, contender: Contender, corpus: Corpus, corpus_mb: int) -> report.Run:
        """One run of one contender; the plain loop must have run on the corpus before any other.

        Raises:
            ContenderFailed: it ended with an error.
            WrongWork: it wrote something else than the plain loop.
        """
        folder = self._cache / "runs" / contender.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        output, stats = folder / "output", folder / "stats.json"
        reference = self._references.get(corpus.directory)
        budget = reference.budget if reference else 0
        command = contender.command(self._setting, corpus, output, stats, budget)
        corpus.forget_pages()
        with self._console.status(f"{contender.title}, {corpus_mb} MB"):
            measurement = measure_apart(command, folder / "log.txt")
        with self._console.status(f"{contender.title}, {corpus_mb} MB: reading it back"):
            if reference is None:
                reference = same_work.make_reference(
                    contender.read(output), stats, corpus.row_groups(), self._budget_share
                )
                self._references[corpus.directory] = reference
                work = reference.work
            else:
                work = same_work.read_work(contender.read(output))
            stated = json.loads(stats.read_text())["tokens"] if stats.exists() else None
            same_work.check(contender.name, work, stated, reference)
        run = report.Run(
            contender=contender.name,
            corpus_mb=corpus_mb,
            tokens=work.tokens,
            text_bytes=round(corpus.text_bytes * work.tokens / reference.work.tokens),
            needed_bytes=reference.budget_needed_bytes if contender.name == "build" else reference.needed_bytes,
            output_bytes=sum(path.stat().st_size for path in output.rglob("*") if path.is_file()),
            measurement=measurement,
        )
        self._console.print(
            f"{contender.title}, {corpus_mb} MB: {run.tokens:,} tokens in {measurement.wall_seconds:.1f} s "
            f"(CPU {measurement.cpu_seconds:.1f} s), same work"
        )
        if not self._keep:
            shutil.rmtree(folder)
        return run


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run broetchen build and its peers on one corpus, check that they did the same work, compare.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    names = [contender.name for contender in CONTENDERS]
    parser.add_argument("--contenders", nargs="+", choices=names, default=names, help="the plain loop always runs")
    parser.add_argument("--text-mb", type=int, default=1000, help="text of the corpus in MB; 0: no comparison")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each; every second round in reverse")
    parser.add_argument("--scaling", action="store_true", help="also time build on ten times as much")
    parser.add_argument("--scaling-text-mb", type=int, default=200, help="text of the smaller of those corpora in MB")
    parser.add_argument("--budget-share", type=float, default=0.95, help="build's budget, of the corpus' tokens")
    parser.add_argument("--workers", type=int, default=2, help="processes of each contender")
    parser.add_argument("--max-tokens", type=int, default=2048, help="ids of a record at most")
    parser.add_argument("--shard-size", default="8MiB", help="target size of build's shards")
    parser.add_argument(
        "--build-options", default="", help="more options for build, which by itself uses all processors"
    )
    parser.add_argument("--samples", type=Path, default=ROOT / "samples" / "corpora", help="sources of the corpus")
    parser.add_argument("--tokenizer", type=Path, default=ROOT / "samples" / "tokenizer.json")
    parser.add_argument("--eos-token", default="<|eos|>")
    parser.add_argument("--broetchen", type=Path, default=Path(sys.executable).with_name("broetchen"))
    parser.add_argument("--cache", type=Path, default=CACHE, help="corpora, outputs and results")
    parser.add_argument("--seed", type=int, default=0, help="of the corpus")
    parser.add_argument("--keep", action="store_true", help="keep what the last run of each contender wrote")
    arguments = parser.parse_args()
    if not 0 < arguments.budget_share <= 1:
        parser.error("--budget-share must be above 0 and at most 1")
    if "build" in arguments.contenders and not arguments.broetchen.exists():
        parser.error(f"no {arguments.broetchen}; run make bench, name the command with --broetchen, or leave build out")
    return arguments


def main() -> int:
    """Run the benchmark; 0 if all contenders did the same work, 1 if not."""
    if sys.platform != "linux":
        print("The benchmark reads the kernel's accounts in /proc, which only Linux has.", file=sys.stderr)
        return 2
    arguments = parse_arguments()
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        results = bench(arguments, console)
    except (ContenderFailed, WrongWork, FileNotFoundError, RuntimeError) as error:
        console.print("benchmark failed:", style="bold red")
        console.print(str(error), markup=False, highlight=False)
        return 1
    for table in report.rich_tables(results):
        console.print(table)
    (arguments.cache / "results.json").write_text(json.dumps(results.to_json(), indent=1) + "\n")
    (arguments.cache / "results.md").write_text(report.markdown(results))
    console.print(f"also in {arguments.cache / 'results.json'} and results.md beside it", highlight=False)
    return 0


def bench(arguments: argparse.Namespace, console: Console) -> report.Results:
    """Make the corpora, warm up, run all rounds."""
    chosen = [c for c in CONTENDERS if c.name == "loop" or c.name in arguments.contenders]
    setting = Setting(
        tokenizer=arguments.tokenizer.resolve(),
        eos_token=arguments.eos_token,
        max_tokens=arguments.max_tokens,
        workers=arguments.workers,
        shard_size=arguments.shard_size,
        python=Path(sys.executable),
        broetchen=arguments.broetchen.absolute(),
        build_options=shlex.split(arguments.build_options),
    )
    corpora: dict[int, Corpus] = {}

    def corpus(text_mb: int) -> Corpus:
        if text_mb not in corpora:
            with console.status(f"making a corpus of {text_mb} MB"):
                spec = CorpusSpec.of_size(text_mb, seed=arguments.seed)
                corpora[text_mb] = make_corpus(arguments.samples, arguments.cache, spec)
        return corpora[text_mb]

    scaling_mb = [arguments.scaling_text_mb, arguments.scaling_text_mb * SCALING_FACTOR] if arguments.scaling else []
    measured_mb = [mb for mb in dict.fromkeys([arguments.text_mb, *scaling_mb]) if mb]
    for text_mb in (WARM_UP_MB, *measured_mb):
        corpus(text_mb)
    described = machine()
    if described["load_before"] > 0.5 * described["cpus"]:
        load = described["load_before"]
        console.print(f"[yellow]load average {load:.1f}: other work is running, so the times are too long")

    runner = Bench(setting, arguments.budget_share, arguments.cache, console, arguments.keep)
    # The first round brings the libraries' bytecode to disk and page cache; the second shows what start-up costs.
    for _ in range(2):
        start_runs = [runner.run(contender, corpus(WARM_UP_MB), WARM_UP_MB) for contender in chosen]
    runs = []
    for round_number in range(arguments.repeat if arguments.text_mb else 0):
        for contender in chosen if round_number % 2 == 0 else reversed(chosen):
            runs.append(runner.run(contender, corpus(arguments.text_mb), arguments.text_mb))
    scaled = [contender for contender in chosen if contender.name in ("loop", "build")]
    scaling_runs = [runner.run(contender, corpus(text_mb), text_mb) for text_mb in scaling_mb for contender in scaled]
    about_setting = {
        "budget_share": arguments.budget_share,
        "repeat": arguments.repeat,
        "workers": setting.workers,
        "max_tokens": setting.max_tokens,
        "shard_size": setting.shard_size,
        "build_options": list(setting.build_options),
        "eos_token": setting.eos_token,
        "seed": arguments.seed,
    }
    return report.Results(
        date=datetime.now(UTC).date().isoformat(),
        machine=described,
        versions=versions(),
        setting=about_setting,
        corpora=[_about(mb, corpora[mb]) for mb in measured_mb],
        start_runs=start_runs,
        runs=runs,
        scaling_runs=scaling_runs,
    )


def _about(text_mb: int, corpus: Corpus) -> dict[str, int]:
    counts = {key: value for key, value in asdict(corpus).items() if isinstance(value, int)}
    return {"text_mb": text_mb, "files": len(corpus.files), "row_groups": len(corpus.row_groups()), **counts}


if __name__ == "__main__":
    sys.exit(main())
