"""One build by one worker process and by two, side by side.

python -m benchmarks.worker_scaling [--text-mb 1000] [--copies 4] [--workers 2] [--repeat 1]

A worker encodes in one thread and writes in another, so that alone it takes more than one processor. Both are measured:
one worker on one processor, which tells the gain of each further processor, and one worker on all of them, which tells
the gain of a further worker on the same machine. All write the same shards. The corpus is read several times over, as
start-up, which no worker shortens, would be a fourth of the time otherwise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.harness.corpus import CorpusSpec, make_corpus
from benchmarks.harness.machine import machine, versions
from benchmarks.harness.measure import Measurement, measure_apart
from benchmarks.harness.places import CACHE, ROOT
from benchmarks.harness.timed_build import build_command, shard_hashes

WANTED_RATIO = 1.8
# The corpus holds more than this part of its bytes in tokens; the rest of it is not read.
_TOKENS_PER_TEXT_BYTE = 0.217


def main() -> int:
    """Runs all in turn, as often as asked, and prints the medians; returns 1 if their shards are not the same."""
    parser = argparse.ArgumentParser(description="Time a build by one worker process and by several.")
    parser.add_argument("--text-mb", type=int, default=1000)
    parser.add_argument("--copies", type=int, default=4, help="how many times the corpus is read, under other names")
    parser.add_argument("--workers", type=int, default=2, help="processes, each for one processor")
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    processors = sorted(os.sched_getaffinity(0))[: arguments.workers]
    if len(processors) < arguments.workers:
        parser.error(f"--workers {arguments.workers}: there are {len(processors)} processors")

    corpus = make_corpus(ROOT / "samples" / "corpora", CACHE, CorpusSpec.of_size(arguments.text_mb))
    tokens = int(corpus.text_bytes * _TOKENS_PER_TEXT_BYTE) * arguments.copies
    folder, sources = CACHE / "runs" / "worker_scaling", CACHE / "runs" / "worker_scaling-sources"
    shutil.rmtree(sources, ignore_errors=True)
    sources.mkdir(parents=True)
    for copy in range(arguments.copies):
        for path in corpus.directory.glob("*.parquet"):
            (sources / f"{copy}-{path.name}").hardlink_to(path)
    contenders = {
        "one worker, one processor": (1, processors[:1]),
        f"one worker, {arguments.workers} processors": (1, processors),
        f"{arguments.workers} workers, {arguments.workers} processors": (arguments.workers, processors),
    }
    measured: dict[str, list[Measurement]] = {name: [] for name in contenders}
    shards = []
    for number in range(arguments.repeat):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            workers, on = contenders[name]
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            corpus.forget_pages()
            options = ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
            command = build_command(str(sources / "*.parquet"), tokens, folder, "8MiB", options)
            pinned = ["taskset", "--cpu-list", ",".join(map(str, on)), *command]
            measured[name].append(measure_apart(pinned, folder / "log.txt"))
            shards.append(shard_hashes(folder))
    shutil.rmtree(folder)
    shutil.rmtree(sources)

    title = f"{tokens:,} tokens, median of {arguments.repeat}"
    table = Table("", "seconds", "Mtok/s", "CPU seconds", "peak RSS MiB", title=title, box=box.SIMPLE_HEAD)
    medians = []
    for name, runs in measured.items():
        medians.append(statistics.median(run.wall_seconds for run in runs))
        cpu = statistics.median(run.cpu_seconds for run in runs)
        memory = max(run.peak_rss_bytes for run in runs) / (1 << 20)
        table.add_row(name, f"{medians[-1]:.1f}", f"{tokens / medians[-1] / 1e6:.1f}", f"{cpu:.1f}", f"{memory:.0f}")
    console = Console()
    console.print(table)
    console.print({**machine(), **versions()})
    if not shards[0] or any(found != shards[0] for found in shards):
        console.print("The shards are not the same.")
        return 1
    ratio = medians[0] / medians[2]
    met = "met" if ratio >= WANTED_RATIO else "missed"
    console.print(
        f"{arguments.workers} workers ÷ one, each on a processor of its own: {ratio:.2f}× "
        f"(wanted ≥ {WANTED_RATIO}× for two: {met}); ÷ one on all of them: {medians[1] / medians[2]:.2f}×"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
