"""Builds from a local folder and from a hub on loopback whose every answer comes late, side by side.

python -m benchmarks.hub_streaming [--text-mb 400] [--latency-ms 20] [--repeat 3]

Both are the same `broetchen build`, a process of its own, timed from start to end, and must write the same shards. The
hub is that of the tests (`tests/support/services/hub_server.py`), in this process: the cost of serving is a part of
the figures.
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
from tests.support.services.hub_server import HubServer

REPOSITORY = "benchmarks/corpus"
WANTED_RATIO = 1.15
# The corpus holds more than this part of its bytes in tokens; the rest of it is not read.
_TOKENS_PER_TEXT_BYTE = 0.2


def main() -> int:
    """Runs both in turn, as often as asked, and prints the medians; returns 1 if their shards are not the same."""
    parser = argparse.ArgumentParser(description="Time a streaming build against a local one.")
    parser.add_argument("--text-mb", type=int, default=400)
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()

    corpus = make_corpus(ROOT / "samples" / "corpora", CACHE, CorpusSpec.of_size(arguments.text_mb))
    tokens = int(corpus.text_bytes * _TOKENS_PER_TEXT_BYTE)
    runs = CACHE / "runs" / "hub_streaming"
    measured: dict[str, list[Measurement]] = {"local": [], "streamed": []}
    shards: dict[str, dict[str, str]] = {}
    fetched = 0
    with HubServer({REPOSITORY: corpus.directory}, latency_s=arguments.latency_ms / 1000) as hub:
        os.environ["HF_ENDPOINT"] = hub.address
        sources = {"local": str(corpus.directory / "*.parquet"), "streamed": hub.source(REPOSITORY, "*.parquet")}
        for number in range(arguments.repeat):
            for name in list(sources)[:: -1 if number % 2 else 1]:
                shutil.rmtree(runs, ignore_errors=True)
                runs.mkdir(parents=True)
                hub.fetched.clear()
                command = build_command(sources[name], tokens, runs, "64MiB")
                measured[name].append(measure_apart(command, runs / "log.txt"))
                shards[name] = shard_hashes(runs)
                fetched = max(fetched, hub.fetched.total())
    shutil.rmtree(runs)

    title = f"{corpus.text_bytes / 1e6:.0f} MB of text, {arguments.latency_ms:g} ms, median of {arguments.repeat}"
    table = Table("", "seconds", "CPU seconds", "peak RSS MiB", title=title, box=box.SIMPLE_HEAD)
    medians = {}
    for name, all_runs in measured.items():
        medians[name] = statistics.median(run.wall_seconds for run in all_runs)
        cpu = statistics.median(run.cpu_seconds for run in all_runs)
        memory = max(run.peak_rss_bytes for run in all_runs) / (1 << 20)
        table.add_row(name, f"{medians[name]:.2f}", f"{cpu:.1f}", f"{memory:.0f}")
    console = Console()
    console.print(table)
    console.print({**machine(), **versions()})
    if shards["local"] != shards["streamed"] or not shards["local"]:
        console.print("The shards are not the same.")
        return 1
    ratio = medians["streamed"] / medians["local"]
    met = "met" if ratio <= WANTED_RATIO else "missed"
    console.print(f"streamed ÷ local: {ratio:.2f} (wanted ≤ {WANTED_RATIO}: {met}); fetched {fetched:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
