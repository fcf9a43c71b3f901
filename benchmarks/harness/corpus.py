"""Makes a parquet corpus of a chosen size out of the small sample corpora.

The samples hold 16 MB of text or less, which is too little to time anything. Repeating them would flatter every
tokenizer with a cache of words, so each document here is drawn and changed by a seeded generator:

* a document of the samples is drawn, and its sentences are shuffled within windows of eight, so its length and language
  stay as they are in real text;
* one sentence in five is replaced with one from anywhere in the same dataset;
* in one sentence of six, two letters of one word are replaced. New words then keep coming, 1.2 to 1.5 in a hundred
  from the 5th to the 55th million words of a corpus of 400 MB; in the shuffled samples it is 1.4 to 1.9 in their
  second million, where they end;
* in a corpus of texts as on the web, spaces, signs and rare characters are then put into the document, as into a PDF
  for the datasets of PDFs, and as into a web page for all others (`benchmarks/harness/web_texts.py`). Without them it
  would be the same document.

The corpus depends on its parameters and the sample files alone, not on the number of processes that made it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import web_texts

Texts = Literal["clean", "web"]
TEXTS: tuple[Texts, ...] = ("clean", "web")
"""Kinds of texts: as the samples are, or as web pages and PDFs are."""

FORMAT = 1  # raise it when the recipe below or that of web texts changes, so that cached corpora are made again
WINDOW = 8
REPLACED_SENTENCES = 0.2
EDITED_SENTENCES = 1 / 6
COLUMNS = ("text", "id", "url", "language", "license")
_SENTENCE = re.compile(r"(?<=[.!?\n])(?=\s)")
_LETTERS = "abcdefghijklmnoprstuvwxyzäöü"


@dataclass(frozen=True)
class CorpusSpec:
    """Decides a corpus: text size in MB (10^6 bytes of UTF-8), files, rows of a row group, seed, kind of texts."""

    text_mb: int
    files: int
    rows_per_group: int = 1000
    seed: int = 0
    texts: Texts = "clean"

    @classmethod
    def of_size(cls, text_mb: int, *, seed: int = 0, texts: Texts = "clean") -> CorpusSpec:
        """A corpus of ``text_mb`` in files of 100 MB of text or less, eight at least.

        Some contenders load the tokenizer again for each file, so that many small files would only slow those down.
        """
        return cls(text_mb=text_mb, files=max(8, -(-text_mb // 100)), seed=seed, texts=texts)


@dataclass(frozen=True)
class Corpus:
    """A corpus on disk: its parquet files in order, and their sizes."""

    directory: Path
    files: list[Path]
    documents: int
    text_bytes: int
    file_bytes: int

    def row_groups(self) -> list[tuple[Path, int, int]]:
        """``(file, row group, compressed bytes of its text column)`` in reading order, from the footers."""
        groups = []
        for path in self.files:
            metadata = pq.read_metadata(path)
            column = metadata.schema.names.index("text")
            groups += [
                (path, index, metadata.row_group(index).column(column).total_compressed_size)
                for index in range(metadata.num_row_groups)
            ]
        return groups

    def texts(self, groups_per_file: int | None = None) -> Iterator[pa.LargeStringArray]:
        """The documents of each row group in reading order, of the first `groups_per_file` of each file, or of all."""
        for path in self.files:
            parquet = pq.ParquetFile(path)
            for group in range(parquet.num_row_groups)[:groups_per_file]:
                column = parquet.read_row_group(group, columns=["text"])["text"]
                yield column.cast(pa.large_string()).combine_chunks()

    def forget_pages(self) -> None:
        """Drop the files from the page cache, so that the next reader's disk reads can be counted."""
        for path in self.files:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)  # only clean pages are dropped
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


@dataclass(frozen=True)
class _Source:
    """Documents of one sample dataset, as pieces that join to the text, and the rows' other columns."""

    name: str
    documents: list[list[str]]
    pieces: list[str]
    rows: list[dict[str, str]]


@lru_cache(maxsize=1)
def _load_samples(samples: Path) -> list[_Source]:
    sources = []
    for directory in sorted(path for path in samples.iterdir() if path.is_dir()):
        documents: list[list[str]] = []
        rows: list[dict[str, str]] = []
        for path in sorted(directory.glob("*.parquet")):
            for row in pq.read_table(path).to_pylist():
                if row["text"]:
                    documents.append(_SENTENCE.split(row["text"]))
                    rows.append({name: str(row.get(name) or "") for name in COLUMNS if name != "text"})
        if documents:
            sources.append(
                _Source(directory.name, documents, [piece for pieces in documents for piece in pieces], rows)
            )
    return sources


def _edit(sentence: str, rng: random.Random) -> str:
    """Replace two letters of one word of at least five letters, where the sentence has one."""
    words = list(re.finditer(r"[^\W\d_]{5,}", sentence))
    if not words:
        return sentence
    word = rng.choice(words)
    first = rng.randrange(word.start() + 1, word.end() - 2)
    return sentence[:first] + rng.choice(_LETTERS) + rng.choice(_LETTERS) + sentence[first + 2 :]


def _compose(pieces: list[str], pool: list[str], rng: random.Random) -> str:
    """One new document out of the pieces of an old one."""
    new = [rng.choice(pool) if rng.random() < REPLACED_SENTENCES else piece for piece in pieces]
    for start in range(0, len(new), WINDOW):
        window = new[start : start + WINDOW]
        rng.shuffle(window)
        new[start : start + WINDOW] = window
    return "".join(_edit(piece, rng) if rng.random() < EDITED_SENTENCES else piece for piece in new)


def _write_file(samples: Path, path: Path, number: int, spec: CorpusSpec) -> tuple[int, int]:
    """Write file ``number`` of the corpus; returns its documents and its bytes of text."""
    sources = _load_samples(samples)
    # Datasets are drawn by their share of documents, as if the samples were one list.
    index = [(source, item) for source in sources for item in range(len(source.documents))]
    rng = random.Random(f"{spec.seed}/{number}")
    web_rng = random.Random(f"{spec.seed}/{number}/web")
    wanted = spec.text_mb * 1_000_000 * (number + 1) // spec.files - spec.text_mb * 1_000_000 * number // spec.files
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    documents = text_bytes = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        rows: list[dict[str, str]] = []
        while text_bytes < wanted or rows:
            if text_bytes < wanted:
                source, item = rng.choice(index)
                text = _compose(source.documents[item], source.pieces, rng)
                if spec.texts == "web":
                    change = web_texts.pdf if source.name.startswith("finepdfs") else web_texts.web
                    text = change(text, web_rng)
                rows.append({**source.rows[item], "id": f"{number:05d}-{documents:07d}", "text": text})
                documents += 1
                text_bytes += len(text.encode())
            if len(rows) == spec.rows_per_group or text_bytes >= wanted:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows = []
    return documents, text_bytes


def samples_digest(samples: Path) -> str:
    """SHA-256 of the names and contents of all sample files.

    Raises:
        FileNotFoundError: there are none.
    """
    digest = hashlib.sha256()
    paths = sorted(samples.glob("*/*.parquet"))
    if not paths:
        raise FileNotFoundError(f"no sample corpora in {samples} (wanted <dataset>/*.parquet); pass --samples DIR")
    for path in paths:
        digest.update(str(path.relative_to(samples)).encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def make_corpus(samples: Path, cache: Path, spec: CorpusSpec, *, processes: int = 2) -> Corpus:
    """Make the corpus under ``cache``, or take it from there if an equal one was made before.

    Raises:
        FileNotFoundError: no parquet file lies in a folder of ``samples``.
    """
    key = json.dumps({"format": FORMAT, "samples": samples_digest(samples), **asdict(spec)}, sort_keys=True)
    directory = cache / f"corpus-{spec.texts}-{spec.text_mb}mb-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if not (directory / "corpus.json").exists():
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "data").mkdir(parents=True)
        paths = [directory / "data" / f"000_{number:05d}.parquet" for number in range(spec.files)]
        # Spawned, since Arrow's threads do not survive a fork.
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            jobs = [pool.submit(_write_file, samples, path, number, spec) for number, path in enumerate(paths)]
            counts = [job.result() for job in jobs]
        totals = {"documents": sum(d for d, _ in counts), "text_bytes": sum(b for _, b in counts)}
        (directory / "corpus.json").write_text(json.dumps({"key": json.loads(key), **totals}, indent=1) + "\n")
    about = json.loads((directory / "corpus.json").read_text())
    files = sorted((directory / "data").glob("*.parquet"))
    return Corpus(
        directory=directory / "data",
        files=files,
        documents=about["documents"],
        text_bytes=about["text_bytes"],
        file_bytes=sum(path.stat().st_size for path in files),
    )


def resampled(files: Sequence[Path], seed: int) -> pa.Table:
    """All rows of `files` in another order, under ids of their own."""
    table = pa.concat_tables(pq.read_table(path) for path in files)
    order = np.random.default_rng(seed).permutation(len(table))
    ids = pa.array([f"{seed:05d}-{number:07d}" for number in range(len(table))])
    return table.take(order).set_column(table.schema.get_field_index("id"), "id", ids)


def write_whole(table: pa.Table, target: Path, rows_per_group: int = 1000) -> None:
    """Writes a parquet file, which has its name once it is whole."""
    partial = target.with_suffix(".part")
    pq.write_table(table, partial, compression="zstd", row_group_size=rows_per_group)
    partial.rename(target)


def main() -> None:
    """Make one corpus and print where it is."""
    parser = argparse.ArgumentParser(description="Make a benchmark corpus from the sample corpora.")
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--text-mb", type=int, default=80)
    parser.add_argument("--texts", choices=TEXTS, default="clean")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    spec = CorpusSpec.of_size(arguments.text_mb, seed=arguments.seed, texts=arguments.texts)
    print(make_corpus(arguments.samples, arguments.cache, spec))


if __name__ == "__main__":
    main()
