"""Reads at random: shards of the records that were asked for, and a row for each."""

from __future__ import annotations

from pathlib import Path

from benchmarks.random_reads import HEADINGS, measure


def test_shards_of_any_number_of_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    """A shard holds seven records of different lengths, over and over, the last time in part."""
    records = [b"x" * (number + 1) for number in range(7)]
    found = {size: measure(records, 25, size, reads=40, seed=3, folder=tmp_path) for size in (1, 16)}
    assert not list(tmp_path.iterdir())
    for size, row in found.items():
        assert (row.records, row.group_size, len(row.lengths)) == (25, size, 40)
        assert set(row.lengths) <= set(range(1, 8))
        assert row.lengths == found[1].lengths
        assert row.cpu_seconds > 0
        assert len(row.cells) == len(HEADINGS)
