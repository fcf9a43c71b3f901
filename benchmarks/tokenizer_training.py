"""Trains a tokenizer by ``broetchen train-tokenizer`` and by calling ``tokenizers`` directly, side by side.

python -m benchmarks.tokenizer_training [--text-mb 80] [--vocab-size 65536] [--style gpt-neox] [--trainer gigatoken]

Both are processes of their own on the same parquet files, timed from start to end, and both tokenizers must have the
same merges. So that they may, the command checks its tokenizer on one small file instead of documents that it keeps
out of the training. Ours does more in its time: it reads footers and a sample to foresee the memory, hashes all text,
checks the round trip, and starts Beam's file systems.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path

import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table
from tokenizers import pre_tokenizers, trainers

from benchmarks.harness.corpus import CorpusSpec, make_corpus
from benchmarks.harness.machine import machine, versions
from benchmarks.harness.measure import Measurement, measure_apart
from benchmarks.harness.places import CACHE, ROOT
from transforms.bpe.styles import STYLES, special_tokens


def train_directly(corpus: Path, style: str, vocab_size: int, output: Path) -> None:
    """Trains as you would without Brötchen: a generator over parquet batches, and `train_from_iterator`."""
    tokenizer = STYLES[style].untrained()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    batches = (
        batch.column(0).to_pylist()
        for path in sorted(corpus.glob("*.parquet"))
        for batch in pq.ParquetFile(path).iter_batches(1000, columns=["text"])
    )
    tokenizer.train_from_iterator(batches, trainer)
    output.mkdir(parents=True)
    tokenizer.save(str(output / "tokenizer.json"))


def main() -> int:
    """Runs both in turn, as often as asked, and prints the medians; returns 1 if their merges are not the same."""
    parser = argparse.ArgumentParser(description="Time tokenizer training against calling tokenizers directly.")
    parser.add_argument("--text-mb", type=int, default=80)
    parser.add_argument("--vocab-size", type=int, default=65_536)
    parser.add_argument("--style", choices=STYLES, default="gpt-4")
    parser.add_argument("--trainer", choices=("tokenizers", "gigatoken"), default="tokenizers")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--direct", nargs=2, type=Path, metavar=("CORPUS", "OUTPUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.direct:
        train_directly(arguments.direct[0], arguments.style, arguments.vocab_size, arguments.direct[1])
        return 0

    corpus = make_corpus(ROOT / "samples" / "corpora", CACHE, CorpusSpec.of_size(arguments.text_mb))
    checked = sorted((ROOT / "samples" / "corpora" / "fineweb_edu_english").glob("*.parquet"))[0]
    runs = CACHE / "runs" / "tokenizer_training"
    common = [f"--vocab-size={arguments.vocab_size}", f"--style={arguments.style}"]
    commands = {
        "tokenizers directly": lambda output: [
            *(sys.executable, "-m", "benchmarks.tokenizer_training", *common),
            *("--direct", str(corpus.directory), str(output)),
        ],
        "broetchen train-tokenizer": lambda output: [
            *(sys.executable, "-m", "beam_pipelines", "train-tokenizer", str(corpus.directory), *common),
            *("--output", str(output), "--eval-data", str(checked), f"--trainer={arguments.trainer}"),
        ],
    }
    measured: dict[str, list[Measurement]] = {name: [] for name in commands}
    merges = {}
    for number in range(arguments.repeat):
        for name in list(commands)[:: -1 if number % 2 else 1]:
            shutil.rmtree(runs, ignore_errors=True)
            runs.mkdir(parents=True)
            measured[name].append(measure_apart(commands[name](runs / "output"), runs / "log.txt"))
            merges[name] = json.loads((runs / "output" / "tokenizer.json").read_text())["model"]["merges"]
    shutil.rmtree(runs)

    title = f"{corpus.text_bytes / 1e6:.0f} MB, {arguments.style}, {arguments.vocab_size:,} tokens, {arguments.trainer}"
    table = Table("", "seconds", "CPU seconds", "MB/s", "peak RSS MiB", title=title, box=box.SIMPLE_HEAD)
    for name, runs_of_it in measured.items():
        seconds = statistics.median(run.wall_seconds for run in runs_of_it)
        cpu = statistics.median(run.cpu_seconds for run in runs_of_it)
        memory = max(run.peak_rss_bytes for run in runs_of_it) / (1 << 20)
        table.add_row(name, f"{seconds:.1f}", f"{cpu:.1f}", f"{corpus.text_bytes / 1e6 / seconds:.1f}", f"{memory:.0f}")
    console = Console()
    console.print(table)
    console.print({**machine(), **versions()})
    first, second = merges.values()
    if first != second:
        console.print("The merges are not the same.")
        return 1
    console.print(f"Both have the same {len(first):,} merges.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
