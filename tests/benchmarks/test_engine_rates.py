"""The engines alone: the same ids from both, and the rates of two passes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.engine_rates import HEADINGS, EngineRate, cells, leading_texts, measure_engine
from benchmarks.harness.corpus import Corpus
from benchmarks.harness.tokenizer_files import SAMPLE


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    texts = [f"Dokument {number} mit  Wörtern, 12 m² und 🩷.\n" * 20 for number in range(40)]
    files = []
    for number in range(2):
        files.append(tmp_path / f"000_{number:05d}.parquet")
        pq.write_table(pa.table({"text": texts[number::2]}), files[-1], row_group_size=7)
    return Corpus(tmp_path, files, len(texts), sum(len(text.encode()) for text in texts), 0)


def test_the_leading_texts_end_with_the_document_that_makes_them_enough(corpus: Corpus) -> None:
    first = next(corpus.texts())
    sizes = [len(text.encode()) for text in first.to_pylist()]
    assert [len(texts) for texts in leading_texts(corpus, sum(sizes[:3]))] == [3]
    assert [len(texts) for texts in leading_texts(corpus, sum(sizes) + 1)] == [7, 1]
    assert sum(map(len, leading_texts(corpus, 10**9))) == 40


def test_both_engines_give_the_same_ids(corpus: Corpus) -> None:
    fast = measure_engine("gigatoken", SAMPLE, corpus, 10**9, compared=11)
    slow = measure_engine("tokenizers", SAMPLE, corpus, corpus.text_bytes // 2, compared=11)
    assert isinstance(fast, EngineRate)
    assert isinstance(slow, EngineRate)
    assert fast.digest == slow.digest
    assert min(fast.passes) > 0
    assert 0 < fast.reference_share < 1 == slow.reference_share
    other = measure_engine("gigatoken", SAMPLE, corpus, 10**9, compared=12)
    assert isinstance(other, EngineRate)
    assert other.digest != fast.digest


def test_a_tokenizer_that_gigatoken_cannot_do_has_its_reason_in_the_table() -> None:
    reference = EngineRate((2.0, 2.5), 1.0, "")
    shown = cells("odd", "clean", "does not do it", reference)
    assert len(shown) == len(HEADINGS)
    assert shown[2] == "none: does not do it"
    assert cells("good", "web", EngineRate((20.0, 50.0), 0.01, ""), reference)[2:] == [
        *("20.0", "50.0", "2.00", "2.50", "10.0×", "20.0×", "1.000%"),
    ]
