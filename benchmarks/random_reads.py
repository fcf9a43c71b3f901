"""The cost of a record that Grain reads at random, by the number of records in its shard.

python -m benchmarks.random_reads [--records 25000 50000 …] [--group-sizes 1 16] [--reads 1000]

A shard of each size is written as a build writes it: records of ids of the benchmark's corpus, with EOS, over and over.
A process of its own then opens it by Grain's `ArrayRecordDataSource`, as MaxText does, and reads records one by one in
a random order that the seed decides. The file is in the page cache, so that the reader's own time is measured.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grain.python as grain
import numpy as np
import psutil
from rich.console import Console

from benchmarks.harness.corpus import Corpus, CorpusSpec, make_corpus
from benchmarks.harness.machine import machine_at_rest
from benchmarks.harness.places import add_place_options
from benchmarks.harness.report import markdown_table, rich_table
from benchmarks.harness.runner import run_command
from benchmarks.harness.same_work import WrongWork
from benchmarks.harness.tokenizer_files import find_tokenizer
from transforms.arrayrecord.example import encode_ids
from transforms.arrayrecord.records import add_bos_eos, record_bounds
from transforms.arrayrecord.writer import ShardWriter
from transforms.encoding.encoders import GigatokenEncoder
from transforms.tokenizer.file import load_tokenizer

RECORDS = (10_000, 25_000, 50_000, 100_000, 200_000, 400_000)
GROUP_SIZES = (1, 16)
WANTED_AT, WANTED_MS = 25_000, 0.1
"""The target: records of a shard, and the milliseconds that a read of one should stay under."""
_TOKENIZER, _EOS_ID, _MAX_TOKENS = "sample", 1, 2048
# Of the shard, beside the one that is read: how many times it is opened to measure its memory; and reads before that.
_OPENED = 8
_WARM_UP_READS = 200
# The fastest counts, since other work on the machine only makes them slower.
_ROUNDS = 5
HEADINGS = ("records of the shard", "group size", "MB", "CPU ms a read", "ms a read", "index, bytes a record")


@dataclass(frozen=True)
class RandomReads:
    """The cost of reads from one shard.

    Attributes:
        records: of the shard.
        group_size: records that it compresses together.
        file_bytes: its size.
        cpu_seconds: of a read, by all threads of the process.
        seconds: of a read, by the clock.
        index_bytes: by which the process grows for each shard that it opens.
        lengths: of the records that were read, in bytes, by which shards of the same records can be compared.
    """

    records: int
    group_size: int
    file_bytes: int
    cpu_seconds: float
    seconds: float
    index_bytes: int
    lengths: tuple[int, ...]

    @property
    def cells(self) -> list[str]:
        """The cells of a table with `HEADINGS`."""
        return [
            f"{self.records:,}",
            str(self.group_size),
            f"{self.file_bytes / 1e6:.0f}",
            f"{1e3 * self.cpu_seconds:.3f}",
            f"{1e3 * self.seconds:.3f}",
            f"{self.index_bytes / self.records:.1f}",
        ]


def records_of(corpus: Corpus, tokenizer: Path, eos_id: int = _EOS_ID, max_tokens: int = _MAX_TOKENS) -> list[bytes]:
    """The records of ids that a build makes of a corpus."""
    encoder = GigatokenEncoder(load_tokenizer(str(tokenizer)), "text")
    records = []
    for texts in corpus.texts():
        encoded = encoder.encode(texts)
        ids, offsets = add_bos_eos(encoded.ids, encoded.offsets, None, eos_id)
        records += encode_ids(ids, record_bounds(offsets, max_tokens))
    return records


def write_shard(path: str, records: Sequence[bytes], count: int, group_size: int) -> None:
    """A shard of `count` records: those given, over and over."""
    with ShardWriter(path, group_size=group_size) as writer:
        for start in range(0, count, len(records)):
            writer.write_many(records[: count - start])


def measure_reads(path: str, group_size: int, reads: int, seed: int) -> RandomReads:
    """Opens a shard and reads `reads` of its records at random; to be run in a process that does nothing else."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Grain logs an error for group sizes other than 1
    process = psutil.Process()
    with grain.ArrayRecordDataSource([path] * (1 + _OPENED)) as source:
        count = len(source) // (1 + _OPENED)
        # The libraries' own memory, and that of a single read, come with the first file.
        _read(source, random.Random(seed + 1).choices(range(count), k=_WARM_UP_READS))
        before = process.memory_info().rss
        _read(source, range(count, len(source), count))
        index_bytes = max(0, process.memory_info().rss - before) // _OPENED
        numbers = random.Random(seed).choices(range(count), k=reads)
        rounds = []
        for _ in range(_ROUNDS):
            started, cpu_started = time.perf_counter(), time.process_time()
            lengths = _read(source, numbers)
            rounds.append((time.process_time() - cpu_started, time.perf_counter() - started))
        cpu_seconds, seconds = min(rounds)
    size = Path(path).stat().st_size
    return RandomReads(count, group_size, size, cpu_seconds / reads, seconds / reads, index_bytes, lengths)


def _read(source: grain.ArrayRecordDataSource, numbers: Iterable[int]) -> tuple[int, ...]:
    return tuple(len(source[number]) for number in numbers)


def measure(records: Sequence[bytes], count: int, group_size: int, reads: int, seed: int, folder: Path) -> RandomReads:
    """Writes a shard of `count` records in `folder`, reads it in another process, and deletes it.

    Raises:
        WrongWork: the shard has another number of records.
    """
    path = folder / "shard.arecord"
    write_shard(str(path), records, count, group_size)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(measure_reads, str(path), group_size, reads, seed).result()
    path.unlink()
    if found.records != count:
        raise WrongWork(f"a shard of {count:,} records gives {found.records:,}")
    return found


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.random_reads",
        description="Time reads at random through Grain, by the number of records in a shard.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--records", type=int, nargs="+", default=list(RECORDS), help="records of each shard")
    parser.add_argument("--group-sizes", type=int, nargs="+", default=list(GROUP_SIZES))
    parser.add_argument("--reads", type=int, default=1000, help="records read of each shard, five times")
    parser.add_argument("--text-mb", type=int, default=10, help="text whose records are written over and over, in MB")
    add_place_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the corpus and of the order")
    return parser.parse_args()


def bench(arguments: argparse.Namespace, console: Console) -> None:
    """Makes the records, measures each shard, prints and writes the table."""
    tokenizer = find_tokenizer(_TOKENIZER, arguments.samples, arguments.cache)
    with console.status("making a corpus and its records"):
        spec = CorpusSpec.of_size(arguments.text_mb, seed=arguments.seed)
        records = records_of(make_corpus(arguments.samples, arguments.cache, spec), tokenizer.path)
    machine_at_rest(console)
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.cache) as folder:
        for group_size in arguments.group_sizes:
            for count in arguments.records:
                with console.status(f"{count:,} records, groups of {group_size}"):
                    rows.append(measure(records, count, group_size, arguments.reads, arguments.seed, Path(folder)))
    same: dict[int, tuple[int, ...]] = {}
    for row in rows:
        if same.setdefault(row.records, row.lengths) != row.lengths:
            raise WrongWork(f"shards of {row.records:,} records give other records by another group size")
    table = [row.cells for row in rows]
    shown = rich_table("One record at random through Grain", HEADINGS, table, 0)
    mean = round(np.mean([len(record) for record in records]))
    shown.caption = (
        f"{arguments.reads:,} reads each, the fastest of {_ROUNDS} rounds, in one thread, of shards in the page cache; "
        f"records of {mean:,} bytes on average, at most {_MAX_TOKENS:,} ids, zstd. Wanted at the default of "
        f"shards.max_records, {WANTED_AT:,}: less than {WANTED_MS} ms."
    )
    console.print(shown)
    path = arguments.cache / "random-reads.md"
    path.write_text("\n".join([*markdown_table(HEADINGS, table, 0), "", shown.caption]) + "\n")
    console.print(f"also in {path}", highlight=False)


if __name__ == "__main__":
    sys.exit(run_command(parse_arguments, bench))
