"""Filtered builds against a build of a source that holds nothing but the rows that pass: time, and bytes fetched.

python -m benchmarks.filtered_build [--text-mb 200] [--kept 0.25] [--repeat 3]

The same documents lie three times on a hub on loopback, which counts the bytes that it sends: with a column `score`
that rises from row to row, by whose statistics row groups are ruled out; with the same scores mixed, where each row
group holds some that pass; and, of the former, the rows that pass alone. All builds take the same budget.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.harness.corpus import Corpus, CorpusSpec, make_corpus
from benchmarks.harness.machine import machine, versions
from benchmarks.harness.measure import Measurement, measure_apart
from benchmarks.harness.places import CACHE, ROOT
from benchmarks.harness.timed_build import build_command
from tests.support.services.hub_server import HubServer

LAYOUTS = ("alone", "sorted", "mixed")
# The corpus holds more than this part of its bytes in tokens; some rows that pass are not read.
_TOKENS_PER_TEXT_BYTE = 0.18
_ROWS_A_GROUP = 1000
_FACTOR = 0x9E3779B97F4A7C15


def mixed(rows: int) -> np.ndarray:
    """A score from 0 to 1 for each row, in no order: float64 [rows].

    >>> [round(float(one), 2) for one in mixed(4)]
    [0.0, 0.62, 0.24, 0.85]
    """
    return (np.arange(rows, dtype=np.uint64) * np.uint64(_FACTOR)).astype(np.float64) / 2**64


def rising(rows: int) -> np.ndarray:
    """A score from 0 to 1 for each row, in the order of rows: float64 [rows]."""
    return np.arange(rows) / max(1, rows)


def write_layout(corpus: Corpus, folder: Path, scores: Callable[[int], np.ndarray], above: float) -> None:
    """Writes the corpus with a score in each row; rows whose score is below `above` are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    values, first = scores(corpus.documents), 0
    for path in corpus.files:
        table = pq.read_table(path)
        table = table.append_column("score", pa.array(values[first : first + len(table)]))
        first += len(table)
        table = table.filter(pc.greater_equal(table["score"], above))
        if len(table):
            pq.write_table(table, folder / path.name, row_group_size=_ROWS_A_GROUP, compression="zstd")


def needed_bytes(folder: Path, above: float) -> int:
    """Bytes of text and score, as they are stored, of all row groups with a row that passes."""
    needed = 0
    for path in sorted(folder.glob("*.parquet")):
        metadata = pq.read_metadata(path)
        columns = {metadata.schema.column(number).path: number for number in range(metadata.num_columns)}
        for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
            score = group.column(columns["score"])
            if score.statistics.max >= above:
                needed += score.total_compressed_size + group.column(columns["text"]).total_compressed_size
    return needed


def main() -> int:
    """Runs all in turn, as often as asked, and prints the medians."""
    parser = argparse.ArgumentParser(description="Time filtered builds, and count what they fetch.")
    parser.add_argument("--text-mb", type=int, default=200)
    parser.add_argument("--kept", type=float, default=0.25, help="share of the rows that pass")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()

    above = 1 - arguments.kept
    corpus = make_corpus(ROOT / "samples" / "corpora", CACHE, CorpusSpec.of_size(arguments.text_mb))
    tokens = int(corpus.text_bytes * arguments.kept * _TOKENS_PER_TEXT_BYTE)
    root = CACHE / "runs" / "filtered_build"
    shutil.rmtree(root, ignore_errors=True)
    for name in LAYOUTS:
        write_layout(corpus, root / "sources" / name, mixed if name == "mixed" else rising, above * (name == "alone"))
    measured: dict[str, list[Measurement]] = {name: [] for name in LAYOUTS}
    fetched: dict[str, int] = {}
    with HubServer({f"benchmarks/{name}": root / "sources" / name for name in LAYOUTS}) as hub:
        os.environ["HF_ENDPOINT"] = hub.address
        for number in range(arguments.repeat):
            for name in LAYOUTS[:: -1 if number % 2 else 1]:
                runs = root / "run"
                shutil.rmtree(runs, ignore_errors=True)
                runs.mkdir()
                hub.fetched.clear()
                filters = [] if name == "alone" else [["score", ">=", above]]
                source = hub.source(f"benchmarks/{name}", "*.parquet")
                command = build_command(source, tokens, runs, "16MiB", filters=filters)
                measured[name].append(measure_apart(command, runs / "log.txt"))
                fetched[name] = hub.fetched.total()
    needed = {name: needed_bytes(root / "sources" / name, above) for name in LAYOUTS}
    shutil.rmtree(root)

    title = f"{corpus.text_bytes / 1e6:.0f} MB of text, {arguments.kept:.0%} of it pass, {tokens:,} tokens"
    columns = ("rows", "seconds", "CPU seconds", "fetched, MB", "needed by all that pass, MB")
    table = Table(*columns, title=f"{title}, median of {arguments.repeat}", box=box.SIMPLE_HEAD)
    for name, all_runs in measured.items():
        wall = statistics.median(run.wall_seconds for run in all_runs)
        cpu = statistics.median(run.cpu_seconds for run in all_runs)
        amounts = (f"{amount / 1e6:.1f}" for amount in (fetched[name], needed[name]))
        table.add_row(name, f"{wall:.2f}", f"{cpu:.1f}", *amounts)
    console = Console()
    console.print(table)
    console.print({**machine(), **versions()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
