"""Sources whose documents are uneven: `python -m tests.campaign.sources.uneven` is the long form."""

from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.campaign.sources.uneven import documents, try_plan, write_source


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("seed", [101, 102])
def test_log_normal_lengths(tmp_path: Path, sigma: float, seed: int) -> None:
    write_source(tmp_path, documents(sigma, 90_000_000, seed), seed)
    draw = try_plan(tmp_path, 0.9)
    assert draw.need > 15_000_000
    assert draw.holds, draw
    assert draw.frugal, draw
    assert draw.rounds <= 4


def test_short_rows_before_a_document_of_two_megabytes(tmp_path: Path) -> None:
    """By the tokens of the first rows alone, all 58 shards would be encoded for a budget of 40,000."""
    texts = list(itertools.islice(documents(0.5, 2**40, 1), 1200))
    rows = ["kurz", "Ein langes Dokument. " * 100_000, *(f"Zeile {number}" for number in range(300))]
    for number in range(4):
        part = pa.table({"text": [*rows, *texts[number * 300 : (number + 1) * 300]]})
        pq.write_table(part, tmp_path / f"{number}.parquet", row_group_size=302 if number == 0 else 100)
    draw = try_plan(tmp_path, 0.005, build=True)
    assert draw.need < 50_000
    assert draw.holds, draw
    assert draw.frugal, draw
    assert draw.rounds <= 2
