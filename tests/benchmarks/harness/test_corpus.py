"""Corpora of the benchmarks: the kind of texts is a part of a corpus's name."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.harness.corpus import Corpus, CorpusSpec, Texts, make_corpus

SENTENCES = ["Ein kurzer Satz mit Wörtern. Noch einer steht hier. ", "A short sentence. Another one of some length. "]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    for number, name in enumerate(("finepdfs_german", "fineweb_english")):
        (folder / name).mkdir()
        rows = [{"text": (SENTENCES[number] * (10 + document)).strip(), "id": str(document)} for document in range(20)]
        pq.write_table(pa.Table.from_pylist(rows), folder / name / "000_00000.parquet")
    return folder


def texts_of(corpus: Corpus) -> list[str]:
    return [text for batch in corpus.texts() for text in batch.to_pylist()]


def make(samples: Path, cache: Path, texts: Texts) -> Corpus:
    return make_corpus(samples, cache, CorpusSpec(text_mb=1, files=2, texts=texts), processes=1)


def test_corpora_of_either_kind_lie_beside_each_other(samples: Path, tmp_path: Path) -> None:
    clean, web = make(samples, tmp_path, "clean"), make(samples, tmp_path, "web")
    assert clean.directory != web.directory
    assert make(samples, tmp_path, "web") == web
    assert 1_000_000 <= web.text_bytes < 1_010_000
    assert web.documents == len(texts_of(web))
    assert not any("  " in text for text in texts_of(clean))
    assert 0.2 < sum("  " in text for text in texts_of(web)) / web.documents < 0.4
    # Where nothing was put in, it is the same document.
    assert set(texts_of(clean)) & set(texts_of(web))


def test_the_first_row_groups_of_all_files_are_a_sample(samples: Path, tmp_path: Path) -> None:
    corpus = make_corpus(samples, tmp_path, CorpusSpec(text_mb=1, files=2, rows_per_group=100), processes=1)
    batches = list(corpus.texts(groups_per_file=1))
    assert [len(texts) for texts in batches] == [100, 100]
    assert batches[0].type == pa.large_string()
    assert batches[1][0].as_py() == pq.read_table(corpus.files[1])["text"][0].as_py()
