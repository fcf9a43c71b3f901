"""The text in which no word comes twice."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks import distinct_words
from benchmarks.distinct_words import make_distinct, words


def test_no_word_comes_twice() -> None:
    found = words(10**12, 300_000).split()
    assert len(set(found)) == len(found) == 300_000
    assert not set(found) & set(words(0, 1000).split())


def test_files_go_on_where_others_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct_words, "_FILE_MB", 1)
    folder = make_distinct(tmp_path, 2)
    texts = [text for path in sorted(folder.glob("*.parquet")) for text in pq.read_table(path)["text"].to_pylist()]
    assert len(texts) == 500
    found = "".join(texts).split()
    assert len(set(found)) == len(found) == 200_000
    assert make_distinct(tmp_path, 2) == folder
