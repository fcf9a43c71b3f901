"""``python -m benchmarks.token_count``: one corpus through ``broetchen count`` and DataTrove's ``TokensCounter``.

Both count the tokens of all documents and keep none; they must find the same number. Seconds are those of the whole
process, interpreter start and imports included, as in ``python -m benchmarks``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness.corpus import Corpus, CorpusSpec, make_corpus
from benchmarks.harness.machine import machine, versions
from benchmarks.harness.measure import ContenderFailed, Measurement, measure_apart
from benchmarks.harness.places import CACHE, PEERS, ROOT, WARM_UP_MB
from benchmarks.harness.report import GIB, Target
from benchmarks.harness.same_work import WrongWork

WANTED_RATIO = 20.0


@dataclass(frozen=True)
class Counter:
    """One way to count a corpus: `command` gives the process' arguments, `read` what it counted."""

    name: str
    title: str
    command: Callable[[argparse.Namespace, Corpus, Path, Path], list[str]]
    read: Callable[[Any], tuple[int, int]]


@dataclass(frozen=True)
class CountRun:
    """One run: `tokens` and `documents` are what the contender says, and the others say too."""

    contender: str
    corpus_mb: int
    tokens: int
    documents: int
    measurement: Measurement


def _common(script: str, arguments: argparse.Namespace, corpus: Corpus, stats: Path) -> list[str]:
    more = [f"--corpus={corpus.directory}", f"--tokenizer={arguments.tokenizer.resolve()}", f"--stats={stats}"]
    return [sys.executable, str(PEERS / script), *more]


def _count(arguments: argparse.Namespace, corpus: Corpus, folder: Path, stats: Path) -> list[str]:
    more = [f"--broetchen={arguments.broetchen.absolute()}", *shlex.split(arguments.count_options)]
    return [*_common("broetchen_count.py", arguments, corpus, stats), *more]


def _datatrove(arguments: argparse.Namespace, corpus: Corpus, folder: Path, stats: Path) -> list[str]:
    more = [f"--workers={arguments.workers}", f"--logs={folder / 'logs'}"]
    return [*_common("datatrove_counter.py", arguments, corpus, stats), *more]


COUNTERS = (
    Counter("count", "broetchen count", _count, lambda rows: (rows[-1]["subtokens"], rows[-1]["documents"])),
    Counter(
        "datatrove-counter",
        "DataTrove TokensCounter",
        _datatrove,
        lambda stats: (stats["tokens"], stats["documents"]),
    ),
)
TITLES = {counter.name: counter.title for counter in COUNTERS}
HEADINGS = ("contender", "text", "tokens counted", "seconds", "Mtok/s", "MB/s of text", "CPU s", "peak RSS, GiB")


def run(counter: Counter, arguments: argparse.Namespace, corpus: Corpus, corpus_mb: int) -> CountRun:
    """Runs one contender.

    Raises:
        ContenderFailed: it ended with an error.
        WrongWork: it left documents out.
    """
    folder = arguments.cache / "runs" / counter.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stats = folder / "stats.json"
    corpus.forget_pages()
    measurement = measure_apart(counter.command(arguments, corpus, folder, stats), folder / "log.txt")
    tokens, documents = counter.read(json.loads(stats.read_text()))
    if documents != corpus.documents:
        raise WrongWork(f"{counter.name}: counted {documents} of {corpus.documents} documents")
    shutil.rmtree(folder)
    return CountRun(counter.name, corpus_mb, tokens, documents, measurement)


def check(runs: Sequence[CountRun]) -> None:
    """Holds the counts of the contenders against each other.

    Raises:
        WrongWork: they differ.
    """
    for one in runs:
        if one.tokens != runs[0].tokens:
            raise WrongWork(f"{one.contender} counts {one.tokens} tokens, and {runs[0].contender} {runs[0].tokens}")


def seconds(runs: Sequence[CountRun], contender: str) -> float:
    """The median of a contender's runs."""
    return statistics.median(one.measurement.wall_seconds for one in runs if one.contender == contender)


def target(runs: Sequence[CountRun]) -> Target:
    """How many times faster ``count`` is, beside what is wanted; both counted the same tokens."""
    ours, theirs = (seconds(runs, counter.name) for counter in COUNTERS)
    return Target("count ÷ DataTrove TokensCounter, tokens/s", theirs / ours, WANTED_RATIO, at_least=True, unit="×")


def cpu_ratio(runs: Sequence[CountRun]) -> float:
    """The same of tokens per CPU second, which hardly depends on what else the machine does."""
    ours, theirs = (
        statistics.median(one.measurement.cpu_seconds for one in runs if one.contender == counter.name)
        for counter in COUNTERS
    )
    return theirs / ours


def rows(runs: Sequence[CountRun], corpus: Corpus) -> list[list[str]]:
    """The cells of a table with `HEADINGS`."""
    cells = []
    for counter in COUNTERS:
        mine = [one for one in runs if one.contender == counter.name]
        walls = [one.measurement.wall_seconds for one in mine]
        median = statistics.median(walls)
        cells.append(
            [
                counter.title,
                f"{mine[0].corpus_mb} MB",
                f"{mine[0].tokens:,}",
                f"{median:.1f}" + (f" ({min(walls):.1f}-{max(walls):.1f})" if len(walls) > 1 else ""),
                f"{mine[0].tokens / median / 1e6:.2f}",
                f"{corpus.text_bytes / median / 1e6:.1f}",
                f"{statistics.median(one.measurement.cpu_seconds for one in mine):.1f}",
                f"{max(one.measurement.peak_rss_bytes for one in mine) / GIB:.2f}",
            ]
        )
    return cells


def markdown(results: dict[str, Any], table: Sequence[Sequence[str]], ratio: Target, by_cpu: float) -> str:
    """The results for the documentation, with all that is needed to run them again."""
    about, corpus = results["machine"], results["corpus"]
    libraries = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    starts = "; ".join(
        f"{TITLES[one['contender']]} {one['measurement']['wall_seconds']:.1f}" for one in results["start_runs"]
    )
    lines = [HEADINGS, ["---", *["---:"] * (len(HEADINGS) - 1)], *table]
    return (
        "\n".join(
            [
                f"{results['date']}, {about['cpu']}, {about['cpus']} cores, {about['memory_gib']:.0f} GiB, "
                f"{about['system']}, Python {about['python']}; load average before the first run "
                f"{about['load_before']:.2f}.",
                "",
                f"Corpus: {corpus['text_bytes'] / 1e6:.0f} MB of text, {corpus['documents']:,} documents, "
                f"{corpus['files']} files. DataTrove with {results['workers']} workers. "
                f"{results['repeat']} run{'s' if results['repeat'] > 1 else ''} of each. Versions: {libraries}.",
                "",
                f"Seconds for {WARM_UP_MB} MB, which is nearly all start-up: {starts}.",
                "",
                *(f"| {' | '.join(line)} |" for line in lines),
                "",
                f"{ratio.what}: {ratio.value:.1f}×; wanted: {ratio.limit:g}× or more. Per CPU second: {by_cpu:.1f}×.",
            ]
        )
        + "\n"
    )


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.token_count",
        description="Run broetchen count and DataTrove's TokensCounter on one corpus, check that they agree, compare.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--text-mb", type=int, default=1000, help="text of the corpus in MB")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each; every second round in reverse")
    parser.add_argument("--workers", type=int, default=2, help="processes of DataTrove")
    parser.add_argument("--count-options", default="", help="more options for count, which sets its workers itself")
    parser.add_argument("--samples", type=Path, default=ROOT / "samples" / "corpora", help="sources of the corpus")
    parser.add_argument("--tokenizer", type=Path, default=ROOT / "samples" / "tokenizer.json")
    parser.add_argument("--broetchen", type=Path, default=Path(sys.executable).with_name("broetchen"))
    parser.add_argument("--cache", type=Path, default=CACHE, help="corpora and results")
    parser.add_argument("--seed", type=int, default=0, help="of the corpus")
    arguments = parser.parse_args()
    if not arguments.broetchen.exists():
        parser.error(f"no {arguments.broetchen}; run make bench, or name the command with --broetchen")
    return arguments


def bench(arguments: argparse.Namespace, console: Console) -> None:
    """Makes the corpus, warms up, runs all rounds, prints and writes the results."""
    with console.status("making the corpora"):
        small, corpus = (
            make_corpus(arguments.samples, arguments.cache, CorpusSpec.of_size(text_mb, seed=arguments.seed))
            for text_mb in (WARM_UP_MB, arguments.text_mb)
        )
    described = machine()
    if described["load_before"] > 0.5 * described["cpus"]:
        load = described["load_before"]
        console.print(f"[yellow]load average {load:.1f}: other work is running, so the times are too long")
    # The first round brings the libraries' bytecode to disk and page cache; the second shows what start-up costs.
    for _ in range(2):
        start_runs = [run(counter, arguments, small, WARM_UP_MB) for counter in COUNTERS]
        check(start_runs)
    runs: list[CountRun] = []
    for round_number in range(arguments.repeat):
        for counter in COUNTERS if round_number % 2 == 0 else reversed(COUNTERS):
            with console.status(f"{counter.title}, {arguments.text_mb} MB"):
                runs.append(run(counter, arguments, corpus, arguments.text_mb))
            check(runs)
            wall = runs[-1].measurement.wall_seconds
            console.print(f"{counter.title}, {arguments.text_mb} MB: {runs[-1].tokens:,} tokens in {wall:.1f} s")
    table, ratio = rows(runs, corpus), target(runs)
    shown = Table(title="Counting")
    for index, heading in enumerate(HEADINGS):
        shown.add_column(heading, justify="right" if index else "left")
    for cells in table:
        shown.add_row(*cells)
    console.print(shown)
    console.print(
        f"{ratio.what}: {ratio.value:.1f}×, wanted ≥ {ratio.limit:g}×: {'met' if ratio.met else 'missed'}",
        style=None if ratio.met else "bold red",
    )
    console.print(f"tokens per CPU second: {cpu_ratio(runs):.1f}×")
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": described,
        "versions": versions(),
        "workers": arguments.workers,
        "repeat": arguments.repeat,
        "corpus": {"text_bytes": corpus.text_bytes, "documents": corpus.documents, "files": len(corpus.files)},
        "start_runs": [asdict(one) for one in start_runs],
        "runs": [asdict(one) for one in runs],
        "target": {**asdict(ratio), "met": ratio.met},
    }
    (arguments.cache / "count-results.json").write_text(json.dumps(results, indent=1) + "\n")
    (arguments.cache / "count-results.md").write_text(markdown(results, table, ratio, cpu_ratio(runs)))
    console.print(f"also in {arguments.cache / 'count-results.json'} and count-results.md beside it", highlight=False)


def main() -> int:
    """Run the benchmark; 0 if both counted the same, 1 if not."""
    if sys.platform != "linux":
        print("The benchmark reads the kernel's accounts in /proc, which only Linux has.", file=sys.stderr)
        return 2
    arguments = parse_arguments()
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        bench(arguments, console)
    except (ContenderFailed, WrongWork, FileNotFoundError, RuntimeError) as error:
        console.print("benchmark failed:", style="bold red")
        console.print(str(error), markup=False, highlight=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
