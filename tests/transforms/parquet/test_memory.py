"""Memory is bounded by bytes: files in which few bytes, or few rows, become many are read in less than 0.9 GiB."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

MOST_KIB = 900 << 10
# The peak of the process itself: what it has inherited of the one that started it does not count.
PROGRAM = """
import resource, sys
from transforms.parquet.texts import read_texts
from transforms.parquet.columns import unite_schemas
import pyarrow.parquet as pq
schema = unite_schemas([("", pq.read_schema(sys.argv[1]))], "text")
documents = total = 0
for _, batch in read_texts(sys.argv[1], range(pq.read_metadata(sys.argv[1]).num_row_groups), "text",
                           schema=schema if sys.argv[2] == "all" else None):
    documents += len(batch.texts)
    total += batch.texts.nbytes
    assert len(batch.texts) <= 8192
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(documents, total, peak.split()[1])
"""

KIB, MIB = 1 << 10, 1 << 20


def write(path: Path, batches: Iterator[dict[str, list[Any]]], **options: Any) -> None:
    """A file of one row group, batch by batch."""
    writer = None
    for batch in batches:
        table = pa.table(batch)
        writer = writer or pq.ParquetWriter(path, table.schema, **options)
        writer.write_batch(table.to_batches()[0], row_group_size=1 << 30)
    assert writer
    writer.close()


def text(size: int, seed: int = 0) -> str:
    return (f"{seed} Ein Satz von mehreren. " * (size // 20 + 1))[:size]


def one_batch(values: list[str], **others: list[Any]) -> Iterator[dict[str, list[Any]]]:
    yield {"text": values, **others}


def short_then_long(short: int, long: int, size: int) -> Iterator[dict[str, list[Any]]]:
    yield {"text": [f"Zeile {number}" for number in range(short)]}
    for number in range(long):
        yield {"text": [text(size, number)]}


def prefixes(rows: int, size: int) -> Iterator[dict[str, list[Any]]]:
    same = text(size)
    return one_batch([f"{same}{number}" for number in range(rows)])


DELTA = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
PLAIN: dict[str, Any] = {"use_dictionary": False}
FILES: dict[str, tuple[Callable[[], Iterator[dict[str, list[Any]]]], dict[str, Any], int]] = {
    "shared prefixes": (lambda: prefixes(3000, 256 * KIB), DELTA, 3000),
    "shared prefixes of 16 MiB": (lambda: prefixes(20, 16 * MIB), DELTA, 20),
    "short rows before long ones": (lambda: short_then_long(600_000, 250, 2 * MIB), PLAIN, 600_250),
    "short rows before long ones, with a dictionary": (lambda: short_then_long(600_000, 60, 2 * MIB), {}, 600_060),
    "16 MiB among short rows": (lambda: short_then_long(100_000, 20, 16 * MIB), PLAIN, 100_020),
    "one long text again and again": (lambda: one_batch([text(2 * MIB)] * 900), {}, 900),
    "16 MiB again and again, among others": (
        lambda: one_batch([text(16 * MIB)] * 60 + [f"Zeile {number}" for number in range(400_000)]),
        {"dictionary_pagesize_limit": 4 * MIB},
        400_060,
    ),
    "one row": (lambda: one_batch([text(16 * MIB)]), PLAIN, 1),
}
COLUMNS: dict[str, tuple[Callable[[], Iterator[dict[str, list[Any]]]], dict[str, Any], int]] = {
    "html beside short text": (
        lambda: ({"text": [f"Text {n}"], "html": [text(200 * KIB, n)]} for n in range(6000)),
        PLAIN,
        6000,
    ),
    "one html for all": (lambda: one_batch(["kurz"] * 9000, html=[text(200 * KIB)] * 9000), {}, 9000),
    "html with shared prefixes": (
        lambda: one_batch(["kurz"] * 4000, html=[text(256 * KIB) + str(n) for n in range(4000)]),
        {"use_dictionary": False, "column_encoding": {"html": "DELTA_BYTE_ARRAY"}},
        4000,
    ),
    "lists": (
        lambda: ({"text": [f"Text {n}"], "parts": [[text(4 * KIB, k) for k in range(64)]]} for n in range(3000)),
        {},
        3000,
    ),
}


def read(path: Path, columns: str) -> tuple[int, int, int]:
    """Documents, bytes of text, and the peak in KiB."""
    command = [sys.executable, "-c", PROGRAM, str(path), columns]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert ended.returncode == 0, ended.stderr
    documents, total, peak = map(int, ended.stdout.split())
    return documents, total, peak


@pytest.mark.slow
@pytest.mark.parametrize(
    ("columns", "name"), [*(("text", name) for name in FILES), *(("all", name) for name in COLUMNS)]
)
def test_memory_is_bounded_by_bytes(tmp_path: Path, columns: str, name: str) -> None:
    make, options, documents = (FILES if columns == "text" else COLUMNS)[name]
    path = tmp_path / "a.parquet"
    # In a process of its own: the file's content may be gigabytes, which this one would keep.
    if (child := os.fork()) == 0:
        try:
            write(path, make(), **options)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    found, _, peak = read(path, columns)
    assert found == documents
    assert peak < MOST_KIB, f"{peak >> 10} MiB"


def test_batches_are_of_about_a_mebibyte_whatever_the_rows(tmp_path: Path) -> None:
    from transforms.parquet.texts import read_texts

    chosen = random.Random(3)
    values = [text(int(2 ** chosen.uniform(0, 18)), number) or "x" for number in range(4000)]
    for number, options in enumerate(({}, PLAIN, DELTA)):
        path = tmp_path / f"{number}.parquet"
        write(path, one_batch(values), **options)
        batches = [batch.texts for _, batch in read_texts(str(path), [0], "text")]
        assert [value for batch in batches for value in batch.to_pylist()] == values
        sizes = [sum(map(len, batch.to_pylist())) for batch in batches]
        assert all(size <= 4 * MIB for size in sizes)
        assert sum(size >= MIB // 2 for size in sizes) >= len(sizes) - 1
