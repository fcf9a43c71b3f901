"""The memory of ``build`` on text in which no word comes twice, so that a cache of words finds nothing and only grows.

python -m benchmarks.distinct_words [--text-mb 200 2000] [--tokenizers sample nanochat]

Two worker processes, shards of 8 MiB. Memory is wanted below a bound, and no more for ten times the text.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.harness.machine import machine_at_rest, versions
from benchmarks.harness.measure import measure_apart
from benchmarks.harness.places import add_place_options, check_broetchen
from benchmarks.harness.report import (
    TARGET_HEADINGS,
    Target,
    machine_line,
    markdown_table,
    rich_table,
    target_cells,
    targets_table,
    versions_line,
)
from benchmarks.harness.runner import run_command
from benchmarks.harness.timed_build import build_command
from benchmarks.harness.tokenizer_files import NAMES, find_tokenizer

WANTED_GIB = 1.5
WANTED_GROWTH = 1.05
WORKERS = 2
HEADINGS = ("tokenizer", "text, MB", "seconds", "MB/s", "peak RSS, GiB", "peak PSS, GiB")
_FILE_MB = 100
_WORD_LETTERS = 9
_WORDS_A_DOCUMENT = 400
_LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyzABCDEF", np.uint8)
# Of all words of 9 letters out of 32 the n-th is n times this, which is odd, modulo their number: each comes once.
_FACTOR = 0x9E3779B97F4A7C15 & (32**_WORD_LETTERS - 1)


def words(first: int, count: int) -> bytes:
    """The words from number `first` on, a space after each; no other number has the same word.

    >>> words(0, 2)
    b'aaaaaaaaa vaFuuFfxz '
    """
    numbers = np.arange(first, first + count, dtype=np.uint64) * np.uint64(_FACTOR)
    digits = (numbers[:, None] >> np.arange(0, 5 * _WORD_LETTERS, 5, dtype=np.uint64)) & np.uint64(31)
    text = np.full((count, _WORD_LETTERS + 1), ord(" "), np.uint8)
    text[:, :_WORD_LETTERS] = _LETTERS[digits]
    return text.tobytes()


def make_distinct(cache: Path, text_mb: int) -> Path:
    """A folder of parquet files of so many 10^6 bytes of text, kept from one run to the next."""
    digest = hashlib.sha256(f"{_WORD_LETTERS} {_WORDS_A_DOCUMENT} {_FACTOR}".encode()).hexdigest()[:8]
    folder = cache / f"distinct-{text_mb}mb-{digest}"
    if folder.exists():
        return folder
    unfinished = folder.with_suffix(".work")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    size = (_WORD_LETTERS + 1) * _WORDS_A_DOCUMENT
    for number in range(-(-text_mb // _FILE_MB)):
        documents = min(_FILE_MB, text_mb - number * _FILE_MB) * 1_000_000 // size
        first = number * (_FILE_MB * 1_000_000 // size) * _WORDS_A_DOCUMENT
        data = words(first, documents * _WORDS_A_DOCUMENT)
        offsets = np.arange(documents + 1, dtype=np.int64) * size
        texts = pa.LargeStringArray.from_buffers(documents, pa.py_buffer(offsets), pa.py_buffer(data))
        pq.write_table(
            pa.table({"text": texts}),
            unfinished / f"{number:05d}.parquet",
            row_group_size=1000,
            compression="zstd",
            use_dictionary=False,
        )
    unfinished.rename(folder)
    return folder


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.distinct_words",
        description="Measure the memory of build on text in which no word comes twice.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--text-mb", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--tokenizers", nargs="+", choices=NAMES, default=["sample", "nanochat"])
    add_place_options(parser)
    arguments = parser.parse_args()
    check_broetchen(parser, arguments)
    return arguments


def bench(arguments: argparse.Namespace, console: Console) -> None:
    """Builds each size with each tokenizer, prints and writes the measurements."""
    described = machine_at_rest(console)
    rows: list[list[str]] = []
    targets: list[Target] = []
    for name in arguments.tokenizers:
        tokenizer = find_tokenizer(name, arguments.samples, arguments.cache)
        peaks: list[float] = []
        for text_mb in arguments.text_mb:
            source = make_distinct(arguments.cache, text_mb)
            folder = arguments.cache / "runs" / "distinct_words"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            # More than there are, so that all of the text is built.
            tokens = text_mb * 1_000_000
            options = ["--direct_running_mode=multi_processing", f"--direct_num_workers={WORKERS}"]
            command = build_command(
                str(source / "*.parquet"),
                tokens,
                folder,
                "8MiB",
                options,
                tokenizer=tokenizer.path,
                on_shortfall="keep",
            )
            measured = measure_apart(command, folder / "log.txt")
            shutil.rmtree(folder)
            peaks.append(measured.peak_rss_bytes / (1 << 30))
            rows.append(
                [
                    name,
                    f"{text_mb}",
                    f"{measured.wall_seconds:.1f}",
                    f"{text_mb / measured.wall_seconds:.1f}",
                    f"{peaks[-1]:.2f}",
                    f"{measured.peak_pss_bytes / (1 << 30):.2f}",
                ]
            )
            console.print(f"{name}, {text_mb} MB: peak RSS {peaks[-1]:.2f} GiB")
        targets.append(Target(f"{name}, peak RSS", max(peaks), WANTED_GIB, at_least=False, unit=" GiB"))
        if len(peaks) > 1:
            growth = peaks[-1] / peaks[0]
            what = f"{name}, peak RSS of {arguments.text_mb[-1]} MB ÷ of {arguments.text_mb[0]} MB"
            targets.append(Target(what, growth, WANTED_GROWTH, at_least=False, unit="×"))
    console.print(rich_table("Text in which no word comes twice", HEADINGS, rows))
    console.print(targets_table(targets))
    lines = [
        machine_line(datetime.now(UTC).date().isoformat(), described),
        versions_line(versions()),
        "",
        *markdown_table(HEADINGS, rows),
        "",
        *markdown_table(TARGET_HEADINGS, [target_cells(target) for target in targets]),
    ]
    (arguments.cache / "distinct-words.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(run_command(parse_arguments, bench))
