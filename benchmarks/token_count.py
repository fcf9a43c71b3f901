"""``python -m benchmarks.token_count``: one corpus through ``broetchen count`` and DataTrove's ``TokensCounter``.

Both count the tokens of all documents and keep none; they must find the same number. Seconds are those of the whole
process, interpreter start and imports included, as in ``python -m benchmarks``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from benchmarks.harness.contenders import COUNT, COUNTERS, DATATROVE_COUNT, Setting
from benchmarks.harness.corpus import TEXTS, CorpusSpec, make_corpus
from benchmarks.harness.machine import machine_at_rest, versions
from benchmarks.harness.places import WARM_UP_MB, add_place_options, check_broetchen
from benchmarks.harness.report import (
    GIB,
    TITLES,
    Row,
    Run,
    Target,
    machine_line,
    markdown_table,
    rich_table,
    start_line,
    summarize,
    versions_line,
)
from benchmarks.harness.runner import Bench, check_counts, run_command
from benchmarks.harness.tokenizer_files import NAMES, find_tokenizer

WANTED_RATIO = 20.0
HEADINGS = ("contender", "text", "tokens counted", "seconds", "Mtok/s", "MB/s of text", "CPU s", "peak RSS, GiB")


def target(ours: Row, theirs: Row) -> Target:
    """How many times faster ``count`` is, beside the targets."""
    ratio = ours.tokens_per_second / theirs.tokens_per_second
    return Target(f"count ÷ {TITLES[theirs.contender]}, tokens/s", ratio, WANTED_RATIO, at_least=True, unit="×")


def cells(row: Row) -> list[str]:
    """The cells of a table with `HEADINGS`."""
    return [
        TITLES[row.contender],
        f"{row.corpus_mb} MB",
        f"{row.tokens:,}",
        row.shown_seconds,
        f"{row.tokens_per_second / 1e6:.2f}",
        f"{row.text_mb_per_second:.1f}",
        f"{row.cpu_seconds:.1f}",
        f"{row.peak_rss_bytes / GIB:.2f}",
    ]


def markdown(
    results: dict[str, Any], start_runs: Sequence[Run], rows: Sequence[Row], ratio: Target, by_cpu: float
) -> str:
    """The results for the documentation, with all that is needed to run them again."""
    corpus = results["corpus"]
    lines = [
        machine_line(results["date"], results["machine"]),
        "",
        f"Corpus, {results['texts']} texts: {corpus['text_bytes'] / 1e6:.0f} MB of text, "
        f"{corpus['documents']:,} documents, {corpus['files']} files. Tokenizer: {results['tokenizer']}. "
        f"DataTrove with {results['workers']} workers. {results['repeat']} run{'s' if results['repeat'] > 1 else ''} "
        f"of each. {versions_line(results['versions'])}",
        "",
        start_line(start_runs),
        "",
        *markdown_table(HEADINGS, [cells(row) for row in rows]),
        "",
        f"{ratio.what}: {ratio.value:.1f}×; wanted: {ratio.limit:g}× or more. Per CPU second: {by_cpu:.1f}×.",
    ]
    return "\n".join(lines) + "\n"


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
    parser.add_argument("--texts", choices=TEXTS, default="clean", help="as the samples, or as web pages and PDFs")
    parser.add_argument("--tokenizer", default="sample", help=f"{', '.join(NAMES)}, or a tokenizer.json")
    add_place_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the corpus")
    arguments = parser.parse_args()
    check_broetchen(parser, arguments)
    return arguments


def bench(arguments: argparse.Namespace, console: Console) -> None:
    """Makes the corpus, warms up, runs all rounds, prints and writes the results."""
    tokenizer = find_tokenizer(arguments.tokenizer, arguments.samples, arguments.cache)
    with console.status("making the corpora"):
        small, corpus = (
            make_corpus(
                arguments.samples,
                arguments.cache,
                CorpusSpec.of_size(text_mb, seed=arguments.seed, texts=arguments.texts),
            )
            for text_mb in (WARM_UP_MB, arguments.text_mb)
        )
    described = machine_at_rest(console)
    setting = Setting(
        tokenizer=tokenizer.path,
        broetchen=arguments.broetchen.absolute(),
        workers=arguments.workers,
        count_options=shlex.split(arguments.count_options),
    )
    runner = Bench(setting, 1.0, arguments.cache, console)
    # The first round brings the libraries' bytecode to disk and page cache; the second shows the cost of start-up.
    for _ in range(2):
        start_runs = [runner.count(counter, small, WARM_UP_MB) for counter in COUNTERS]
        check_counts(start_runs)
    runs: list[Run] = []
    for round_number in range(arguments.repeat):
        for counter in COUNTERS if round_number % 2 == 0 else reversed(COUNTERS):
            runs.append(runner.count(counter, corpus, arguments.text_mb))
            check_counts(runs)
    by_name = {row.contender: row for row in summarize(runs, start_runs)}
    ours, theirs = rows = [by_name[counter.name] for counter in (COUNT, DATATROVE_COUNT)]
    ratio, by_cpu = target(ours, theirs), ours.tokens_per_cpu_second / theirs.tokens_per_cpu_second
    console.print(rich_table("Counting", HEADINGS, [cells(row) for row in rows]))
    console.print(
        f"{ratio.what}: {ratio.value:.1f}×, wanted ≥ {ratio.limit:g}×: {'met' if ratio.met else 'missed'}",
        style=None if ratio.met else "bold red",
    )
    console.print(f"tokens per CPU second: {by_cpu:.1f}×")
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": described,
        "versions": versions(),
        "texts": arguments.texts,
        "tokenizer": tokenizer.name,
        "workers": arguments.workers,
        "repeat": arguments.repeat,
        "corpus": {"text_bytes": corpus.text_bytes, "documents": corpus.documents, "files": len(corpus.files)},
        "start_runs": [asdict(one) for one in start_runs],
        "runs": [asdict(one) for one in runs],
        "target": {**asdict(ratio), "met": ratio.met},
    }
    (arguments.cache / "count-results.json").write_text(json.dumps(results, indent=1) + "\n")
    (arguments.cache / "count-results.md").write_text(markdown(results, start_runs, rows, ratio, by_cpu))
    console.print(f"also in {arguments.cache / 'count-results.json'} and count-results.md beside it", highlight=False)


if __name__ == "__main__":
    sys.exit(run_command(parse_arguments, bench))
