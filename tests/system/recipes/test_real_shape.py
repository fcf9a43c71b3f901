"""A mix whose files are shaped like those of the recipe, at a small scale, through plan, build and vocab.

Row groups of 1,000 rows, the columns and types of FineWeb2, FinePDFs and FineWeb, and lengths that are spread as
theirs, a tenth as long: in FinePDFs half of the documents have up to 6.8 kB, and one in ten more than 48 kB.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.support.command import run_command
from tests.support.corpora import SAMPLES, TOKENIZER, reference_ids
from transforms.dataset.manifest import Manifest, read_manifest

ROWS = 1000
# Bytes of the median document, how far the logarithm spreads, and the longest.
LENGTHS = {
    "fineweb2_german": (200, 0.8, 5_000),
    "finepdfs_german": (680, 1.5, 300_000),
    "fineweb_english": (90, 0.8, 5_000),
}
SOURCES = {
    "fineweb2_german": ("000_00000", "000_00001"),
    "finepdfs_german": ("000_00000", "000_00001", "001_00000"),
    "fineweb_english": ("000_00000",),
}
SHARES = {"fineweb2_german": "30%", "finepdfs_german": "60%", "fineweb_english": "10%"}
TOTAL, HELD_OUT = 600_000, 2_000

STRINGS = ("id", "dump", "url", "date", "file_path", "language")


def documents(dataset: str, number: int, seed: int) -> Iterator[str]:
    """Pieces of the sample corpus, each of another length."""
    paths = sorted((SAMPLES / "corpora" / dataset).glob("*.parquet"))
    text = "\n".join(itertools.chain(*(pq.read_table(path)["text"].to_pylist() for path in paths)))
    median, spread, longest = LENGTHS[dataset]
    chance = random.Random(seed)
    for _ in range(number):
        length = min(longest, max(20, round(median * math.exp(chance.gauss(0, spread)))))
        start = chance.randrange(max(1, len(text) - length))
        yield text[start : start + length].strip() or "leer"


def table(dataset: str, file: str, groups: int) -> pa.Table:
    """Rows as those of the dataset on the hub."""
    rows = groups * ROWS
    texts = list(documents(dataset, rows, seed=int(file.replace("_", ""))))
    columns: dict[str, Any] = {"text": texts}
    columns |= {name: [f"{name} {file} {row}" for row in range(rows)] for name in STRINGS}
    if dataset == "fineweb2_german":
        columns |= {
            "language_score": [row / rows for row in range(rows)],
            "language_script": ["Latn"] * rows,
            "minhash_cluster_size": list(range(rows)),
            "top_langs": ['{"deu_Latn_score": 1.0}'] * rows,
        }
    elif dataset == "finepdfs_german":
        columns |= {
            "offset": list(range(rows)),
            "page_average_lid": ["deu_Latn"] * rows,
            "page_average_lid_score": [0.9] * rows,
            "full_doc_lid": ["deu_Latn"] * rows,
            "full_doc_lid_score": [0.8] * rows,
            "per_page_languages": [["deu_Latn", "unknown"][: 1 + row % 2] for row in range(rows)],
            "is_truncated": [row % 7 == 0 for row in range(rows)],
            "extractor": ["docling"] * rows,
            "page_ends": [[row, row + 1][: row % 3] for row in range(rows)],
            "token_count": [len(text) // 4 for text in texts],
        }
    else:
        columns |= {"language_score": [0.9] * rows, "token_count": [len(text) // 4 for text in texts]}
    return pa.table(columns)


@pytest.fixture(scope="module")
def mix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real shape")
    for dataset, files in SOURCES.items():
        (folder / "sources" / dataset).mkdir(parents=True)
        for file in files:
            rows = table(dataset, file, 2 if dataset != "fineweb_english" else 1)
            pq.write_table(rows, folder / "sources" / dataset / f"{file}.parquet", row_group_size=ROWS)
    content = {
        "name": "real-shape",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "total_tokens": TOTAL,
        "records": {"max_tokens": 2048, "add_eos": True},
        "shards": {"target_size": "256KiB"},
        "datasets": {
            dataset: {"source": f"sources/{dataset}/*.parquet", "share": share, "eval_tokens": HELD_OUT}
            for dataset, share in SHARES.items()
        },
    }
    content["datasets"]["fineweb_english"]["max_repeats"] = 4  # type: ignore[index]
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def tokens_of(mix: Path, dataset: str, *, eos: bool) -> int:
    texts = [
        text
        for path in sorted((mix.parent / "sources" / dataset).glob("*.parquet"))
        for text in pq.read_table(path, columns=["text"])["text"].to_pylist()
    ]
    return sum(map(len, reference_ids(texts) if eos else reference_ids(texts, eos=None)))


def manifest_of(output: Path, dataset: str) -> Manifest:
    manifest = read_manifest(str(output / dataset))
    assert manifest is not None
    return manifest


def test_the_files_have_the_shape_of_the_real_ones(mix: Path) -> None:
    columns = {"fineweb2_german": 11, "finepdfs_german": 17, "fineweb_english": 9}
    for path in mix.parent.glob("sources/*/*.parquet"):
        metadata = pq.read_metadata(path)
        groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        assert groups == [ROWS] * len(groups)
        assert len(pq.read_schema(path).names) == columns[path.parent.name]


@pytest.mark.slow
def test_the_plan_says_what_is_repeated(mix: Path) -> None:
    done = run_command("plan", mix, "--format", "json")
    assert done.returncode == 0, done.stderr
    found = {row["dataset"]: row for row in json.loads(done.stdout)}
    assert (found["finepdfs_german"]["passes"], found["fineweb2_german"]["passes"]) == (1, 1)
    english, once = found["fineweb_english"], tokens_of(mix, "fineweb_english", eos=True) - HELD_OUT
    assert english["max_repeats"] == 4
    least = TOTAL / 10 / (english["available"] + english["available_error"] - HELD_OUT)
    assert least <= TOTAL / 10 / once <= english["most_passes"]
    shown = run_command("plan", mix)
    assert "fineweb_english will be written once, for a training to read " in " ".join(shown.stdout.split())
    assert "lack" not in shown.stdout
    # Without repeats it says what is missing, and from the footers before that.
    short = run_command("plan", mix, "--set", "datasets.fineweb_english.max_repeats=null", "--set", "total_tokens=4M")
    assert "dataset fineweb_english: by its footers the source has " in " ".join(short.stderr.split())
    assert "fineweb_english will lack " in " ".join(short.stdout.split())
    assert "times (max_repeats)" in " ".join(short.stdout.split())


@pytest.mark.slow
def test_the_mix_is_built_with_one_dataset_repeated(mix: Path, tmp_path: Path) -> None:
    output = tmp_path / "out put [1]"
    done = run_command("build", mix, "--output", output)
    assert done.returncode == 0, done.stderr
    assert "fineweb_english" in done.stderr
    assert "written once" in " ".join(done.stderr.split())
    for dataset, share in SHARES.items():
        splits = manifest_of(output, dataset).splits
        assert splits["eval"].tokens == HELD_OUT
        budget = TOTAL * int(share.rstrip("%")) // 100
        assert (splits["train"].budget, splits["train"].missing) == (budget, 0)
        if dataset == "fineweb_english":
            once = tokens_of(mix, dataset, eos=True) - HELD_OUT
            assert (splits["train"].tokens, splits["train"].passes) == (once, budget / once)
            assert budget > 1.2 * once
        else:
            assert (splits["train"].tokens, splits["train"].passes) == (budget, None)
    verified = run_command("verify", output, "--against-source", "20", "--config", mix)
    assert verified.returncode == 0, verified.stderr
    # The mixture has the shares of the budgets, and says what it takes to train on them.
    mixed = run_command("mix", output, "--format", "json", "--batch", "8")
    rows = {row["dataset"]: row for row in json.loads(mixed.stdout)}
    assert {name: row["wanted_share"] for name, row in rows.items()} == {
        name: int(share.rstrip("%")) / 100 for name, share in SHARES.items()
    }
    assert rows["fineweb_english"]["passes"] == manifest_of(output, "fineweb_english").splits["train"].passes
    said = " ".join(mixed.stderr.split())
    assert f"has enough for the {TOTAL:,} tokens of all passes, which are {TOTAL // 8 // 2048} steps" in said
    epochs = math.ceil(rows["fineweb_english"]["passes"])
    assert f"num_epoch={epochs}" in said
    report = run_command("report", output, "--output", tmp_path / "report.html")
    assert report.returncode == 0, report.stderr
    page = (tmp_path / "report.html").read_text()
    assert "passes)" in page
    assert "fineweb_english was written once, and is to be read" in " ".join(page.split())


@pytest.mark.slow
def test_the_vocabulary_corpus_keeps_all_columns(mix: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    done = run_command("vocab", mix, "--output", corpus, "--format", "parquet", "--set", "total_tokens=500K")
    assert done.returncode == 0, done.stderr
    for dataset, files in SOURCES.items():
        splits = manifest_of(corpus, dataset).splits
        written = pq.read_table(sorted((corpus / dataset).glob("train-*.parquet")))
        held_out = pq.read_table(sorted((corpus / dataset).glob("eval-*.parquet")))
        source = pq.read_schema(mix.parent / "sources" / dataset / f"{files[0]}.parquet")
        assert {field.name: field.type for field in written.schema} == {field.name: field.type for field in source}
        for name, rows in (("train", written), ("eval", held_out)):
            tokens = sum(map(len, reference_ids(rows["text"].to_pylist(), eos=None)))
            assert tokens == splits[name].tokens
        assert splits["eval"].tokens == HELD_OUT
        if dataset == "fineweb_english":
            assert splits["train"].passes is not None
            # The document of the cut is in both.
            assert ROWS <= written.num_rows + held_out.num_rows <= ROWS + 1
            assert set(written["id"].to_pylist()) | set(held_out["id"].to_pylist()) == {
                f"id 000_00000 {row}" for row in range(ROWS)
            }
    verified = run_command("verify", corpus)
    assert verified.returncode == 0, verified.stderr
