"""``python -m benchmarks``, or ``make bench``: one corpus through ``broetchen build`` and its peers, side by side."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Console

from benchmarks.harness import report
from benchmarks.harness.contenders import CONTENDERS, Setting, comparable
from benchmarks.harness.corpus import TEXTS, Corpus, CorpusSpec, make_corpus
from benchmarks.harness.machine import machine_at_rest, versions
from benchmarks.harness.places import WARM_UP_MB, add_place_options, check_broetchen
from benchmarks.harness.runner import Bench, run_command
from benchmarks.harness.tokenizer_files import NAMES, find_tokenizer

SCALING_FACTOR = 10


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run broetchen build and its peers on one corpus, check that they did the same work, compare.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    names = [contender.name for contender in CONTENDERS]
    parser.add_argument("--contenders", nargs="+", choices=names, default=names, help="the first always runs")
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
    parser.add_argument("--texts", choices=TEXTS, default="clean", help="as the samples, or as web pages and PDFs")
    parser.add_argument("--tokenizer", default="sample", help=f"{', '.join(NAMES)}, or a tokenizer.json")
    parser.add_argument("--eos-token", default="<|eos|>")
    add_place_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the corpus")
    parser.add_argument("--keep", action="store_true", help="keep what the last run of each contender wrote")
    arguments = parser.parse_args()
    if not 0 < arguments.budget_share <= 1:
        parser.error("--budget-share must be above 0 and at most 1")
    if "build" in arguments.contenders:
        check_broetchen(parser, arguments)
    return arguments


def bench(arguments: argparse.Namespace, console: Console) -> None:
    """Measures, prints the results, and writes them."""
    results = measure(arguments, console)
    for table in report.rich_tables(results):
        console.print(table)
    (arguments.cache / "results.json").write_text(json.dumps(results.to_json(), indent=1) + "\n")
    (arguments.cache / "results.md").write_text(report.markdown(results))
    console.print(f"also in {arguments.cache / 'results.json'} and results.md beside it", highlight=False)


def measure(arguments: argparse.Namespace, console: Console) -> report.Results:
    """Makes the corpora, warms up, runs all rounds."""
    tokenizer = find_tokenizer(arguments.tokenizer, arguments.samples, arguments.cache)
    chosen = comparable(arguments.contenders, plain_loop=tokenizer.plain_loop and arguments.texts == "clean")
    if left_out := [c.title for c in CONTENDERS if c.name in arguments.contenders and c not in chosen]:
        console.print(f"left out, as nothing shows here that they do the same work: {'; '.join(left_out)}")
    setting = Setting(
        tokenizer=tokenizer.path,
        broetchen=arguments.broetchen.absolute(),
        workers=arguments.workers,
        eos_token=arguments.eos_token,
        max_tokens=arguments.max_tokens,
        shard_size=arguments.shard_size,
        build_options=shlex.split(arguments.build_options),
    )
    corpora: dict[int, Corpus] = {}

    def corpus(text_mb: int) -> Corpus:
        if text_mb not in corpora:
            with console.status(f"making a corpus of {text_mb} MB"):
                spec = CorpusSpec.of_size(text_mb, seed=arguments.seed, texts=arguments.texts)
                corpora[text_mb] = make_corpus(arguments.samples, arguments.cache, spec)
        return corpora[text_mb]

    scaling_mb = [arguments.scaling_text_mb, arguments.scaling_text_mb * SCALING_FACTOR] if arguments.scaling else []
    measured_mb = [mb for mb in dict.fromkeys([arguments.text_mb, *scaling_mb]) if mb]
    for text_mb in (WARM_UP_MB, *measured_mb):
        corpus(text_mb)
    described = machine_at_rest(console)

    runner = Bench(setting, arguments.budget_share, arguments.cache, console, keep=arguments.keep)
    # The first round brings the libraries' bytecode to disk and page cache; the second shows the cost of start-up.
    for _ in range(2):
        start_runs = [runner.run(contender, corpus(WARM_UP_MB), WARM_UP_MB) for contender in chosen]
    runs = []
    for round_number in range(arguments.repeat if arguments.text_mb else 0):
        for contender in chosen if round_number % 2 == 0 else reversed(chosen):
            runs.append(runner.run(contender, corpus(arguments.text_mb), arguments.text_mb))
    scaled = [contender for contender in chosen if contender is chosen[0] or contender.name == "build"]
    scaling_runs = [runner.run(contender, corpus(text_mb), text_mb) for text_mb in scaling_mb for contender in scaled]
    about_setting = {
        "texts": arguments.texts,
        "tokenizer": tokenizer.name,
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
    sys.exit(run_command(parse_arguments, bench))
