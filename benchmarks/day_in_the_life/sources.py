"""Sources for the recipe's mix, of the shape of the real ones, by resampling the sample corpora.

Each dataset has a corpus of 100 MB of its own texts (`benchmarks/harness/corpus.py`), as the web has them, or as PDFs
have them. A file holds all of its documents, in an order of the file's own and under ids of its own: row groups of
1,000 rows, zstd, and the columns that FineWeb has beside the text. At 2 billion tokens there are about as many files as
the recipe reads of the real datasets for 200, each of a hundredth of the size.
"""

from __future__ import annotations

import math
import multiprocessing
import shutil
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.harness.corpus import CorpusSpec, make_corpus, resampled, write_whole

_BASE_MB, _BASE_FILES = 100, 2
_LEAST_TOKENS_PER_TEXT_BYTE = 0.17
"""No dataset has fewer, by the sample tokenizer and by one that is trained on this text."""
_MARGIN = 1.1
_DUMPS = ("CC-MAIN-2019-35", "CC-MAIN-2021-49", "CC-MAIN-2023-14", "CC-MAIN-2024-10")


def as_published(table: pa.Table, seed: int) -> pa.Table:
    """The rows with the columns of FineWeb, of the same types."""
    rng = np.random.default_rng(seed)
    count = len(table)
    dumps = pa.array(_DUMPS).take(pa.array(rng.integers(0, len(_DUMPS), count)))
    dates = np.datetime64("2019-08-01") + rng.integers(0, 1700 * 86400, count).astype("timedelta64[s]")
    segments = rng.integers(0, 1 << 39, count)
    scores = pa.array(rng.uniform(0.65, 1.0, count))
    lengths = pa.array((np.asarray(pc.binary_length(table["text"])) // 4).astype(np.int64))
    columns = {
        "text": table["text"],
        "id": table["id"],
        "dump": dumps,
        "url": table["url"],
        "date": pa.array([f"{date}Z" for date in dates]),
        "file_path": pa.array([f"s3://commoncrawl/crawl-data/segments/{number:012d}/warc.gz" for number in segments]),
        "language": table["language"],
        "language_score": scores,
        "token_count": lengths,
    }
    return pa.table(columns)


def files_of(tokens: int) -> int:
    """How many files hold so many tokens for certain."""
    return math.ceil(tokens * _MARGIN / _LEAST_TOKENS_PER_TEXT_BYTE / (_BASE_MB * 1_000_000))


def make_sources(samples: Path, cache: Path, wanted: Mapping[str, int]) -> dict[str, list[Path]]:
    """Makes the missing files of each dataset.

    Args:
        samples: a folder for each dataset.
        cache: where corpora and sources are kept.
        wanted: tokens of each dataset.

    Returns:
        The files of each dataset, which hold that many tokens and some more.
    """
    found: dict[str, list[Path]] = {}
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = []
        for dataset, tokens in wanted.items():
            alone = cache / "day-in-the-life" / "samples" / dataset
            shutil.copytree(samples / dataset, alone / dataset, dirs_exist_ok=True)
            corpus = make_corpus(alone, cache, CorpusSpec(_BASE_MB, _BASE_FILES, texts="web"))
            folder = cache / "day-in-the-life" / "sources" / dataset
            folder.mkdir(parents=True, exist_ok=True)
            found[dataset] = [folder / f"000_{number:05d}.parquet" for number in range(files_of(tokens))]
            for number, path in enumerate(found[dataset]):
                if not path.exists():
                    jobs.append(pool.submit(_write, corpus.files, path, number))
        for job in jobs:
            job.result()
    return found


def _write(files: list[Path], target: Path, number: int) -> None:
    write_whole(as_published(resampled(files, number), number), target)
