"""The recipe's first job at its real size: a vocabulary corpus of 2 billion tokens, from 9 GB of parquet.

python -m benchmarks.vocabulary_corpus [--parquet-gb 9] [--tokens 2B]

The parquet files are made by resampling: each holds all documents of the benchmarks' corpus of 400 MB, in a random
order of its own and under ids of its own. It measures `broetchen vocab`, a process of its own with its workers,
from start to end, and then `broetchen count`, which encodes all that was written and must come to the same number.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console

from benchmarks.harness.corpus import Corpus, CorpusSpec, make_corpus, resampled, write_whole
from benchmarks.harness.machine import machine, versions
from benchmarks.harness.measure import measure_apart
from benchmarks.harness.places import CACHE, ROOT
from transforms.quantities import parse_count

# The recipe's mix, in percent.
SHARES = {
    "fineweb2_german": 30,
    "finepdfs_german": 50,
    "fineweb_english": 5,
    "fineweb_edu_english": 5,
    "finepdfs_english": 10,
}


def _resample(files: list[Path], target: Path) -> None:
    write_whole(resampled(files, int(target.stem)), target)


def _make_sources(corpus: Corpus, folder: Path, wanted_bytes: int) -> dict[str, list[Path]]:
    """The files of each dataset, as many as its share of them."""
    files = max(len(SHARES), -(-wanted_bytes // corpus.file_bytes))
    ends = np.cumsum(list(SHARES.values())) / 100 * files
    sources: dict[str, list[Path]] = {name: [] for name in SHARES}
    for number in range(files):
        name = list(SHARES)[int(np.searchsorted(ends, number, side="right"))]
        sources[name].append(folder / name / f"{number:05d}.parquet")
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        made = []
        for paths in sources.values():
            for path in paths:
                path.parent.mkdir(exist_ok=True)
                if not path.exists():
                    made.append(pool.submit(_resample, corpus.files, path))
        for one in made:
            one.result()
    return sources


def main() -> int:
    """Makes the sources, builds, counts, and prints time and memory; returns 1 where the count is another."""
    parser = argparse.ArgumentParser(description="Build the recipe's vocabulary corpus at its real size.")
    parser.add_argument("--parquet-gb", type=float, default=9)
    parser.add_argument("--tokens", default="2B")
    arguments = parser.parse_args()
    tokens = parse_count(arguments.tokens)

    corpus = make_corpus(ROOT / "samples" / "corpora", CACHE, CorpusSpec.of_size(400))
    folder, run = CACHE / "vocabulary-sources", CACHE / "runs" / "vocabulary_corpus"
    sources = _make_sources(corpus, folder, int(arguments.parquet_gb * 1e9))
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    config = {
        "name": "vocab-corpus",
        "tokenizer": {"path": str(ROOT / "samples" / "tokenizer.json")},
        "total_tokens": tokens,
        "datasets": {
            name: {"share": f"{share}%", "source": str(folder / name / "*.parquet")} for name, share in SHARES.items()
        },
    }
    (run / "mix.yaml").write_text(yaml.safe_dump(config))
    broetchen = [sys.executable, "-m", "beam_pipelines"]
    output = str(run / "output")
    built = measure_apart([*broetchen, "vocab", str(run / "mix.yaml"), "--output", output, "--quiet"], run / "log.txt")
    counted = measure_apart(
        [*broetchen, "count", output, "--format", "json", "--output", str(run / "count.json")], run / "count.txt"
    )
    found = next(row["subtokens"] for row in json.loads((run / "count.json").read_text()) if row["dataset"] == "all")

    read = sum(path.stat().st_size for paths in sources.values() for path in paths)
    written = sum(path.stat().st_size for path in Path(output).rglob("*.parquet"))
    console = Console(width=150)
    console.print({**machine(), **versions()})
    console.print(
        f"{read / 1e9:.2f} GB of parquet, {sum(map(len, sources.values()))} files; written {written / 1e9:.2f} GB"
    )
    for name, one in (("vocab", built), ("count", counted)):
        console.print(
            f"{name}: {tokens:,} tokens in {one.wall_seconds:.1f} s, {tokens / one.wall_seconds / 1e6:.2f} Mtok/s; "
            f"{one.cpu_seconds:.1f} CPU s; peak RSS {one.peak_rss_bytes / 2**30:.2f} GiB"
        )
    console.print(f"counted again: {found:,} tokens")
    shutil.rmtree(run)
    return int(found != tokens)


if __name__ == "__main__":
    sys.exit(main())
