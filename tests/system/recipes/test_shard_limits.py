"""Shards by their records: the output of a build where `shards.max_records` decides where they end."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from beam_pipelines.config.mix import MixConfig, load_config
from beam_pipelines.jobs.build import build
from beam_pipelines.jobs.verify import verify
from tests.support.corpora import TOKENIZER, documents_of, reference_ids, write_parquet
from tests.support.reading import read_ids, read_pairs
from transforms.arrayrecord.records import Format, holds_ids
from transforms.dataset.manifest import Manifest, read_manifest
from transforms.errors import BroetchenError

MAX_TOKENS = 8
# By the footers, a record of a document for each row, and one for each so many bytes of text.
RECORD_BYTES = 4 * MAX_TOKENS
ROWS = [3, 2, 4, 1, 12, 2, 2, 1, 3]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files, nine row groups; the documents are of 1 to 30 words, so of one record or of several."""
    folder = tmp_path_factory.mktemp("corpus")
    lengths, first = itertools.cycle([1, 7, 30, 2, 12]), itertools.count(0, 100)
    groups = [
        [
            " ".join(f"Wort{start + number}" for number in range(next(lengths)))
            for start in itertools.islice(first, rows)
        ]
        for rows in ROWS
    ]
    write_parquet(folder / "a" / "0.parquet", groups[:4])
    write_parquet(folder / "a" / "1.parquet", groups[4:])
    return folder


def config_of(corpus: Path, **shards: Any) -> MixConfig:
    record_format = shards.pop("format", "tokens")
    content = {
        "name": "limits",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "records": {"max_tokens": MAX_TOKENS, "format": record_format, "add_eos": holds_ids(record_format)},
        "shards": shards,
        "on_shortfall": "keep",
        "datasets": {"a": {"source": f"{corpus}/a/*.parquet", "tokens": "1M"}},
    }
    path = corpus / "mix.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_config(str(path))


def built(config: MixConfig, output: Path) -> Manifest:
    build(config, str(output), quiet=True)
    manifest = read_manifest(str(output / "a"))
    assert manifest is not None
    return manifest


def rows_of_shards(corpus: Path, max_records: int, record_format: Format) -> list[int]:
    """How many row groups each shard has, counted by hand from the footers."""
    footers = []
    for path in sorted((corpus / "a").glob("*.parquet")):
        metadata = pq.read_metadata(path)
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            footers.append((group.num_rows, group.column(1).total_uncompressed_size))
    shards: list[list[tuple[int, int]]] = []
    for footer in footers:
        joined = [*(shards[-1] if shards else []), footer]
        records = sum(rows for rows, _ in joined)
        if record_format == "tokens":
            records += math.ceil(sum(size for _, size in joined) / RECORD_BYTES)
        if shards and records <= max_records:
            shards[-1] = joined
        else:
            shards.append([footer])
    return [sum(rows for rows, _ in shard) for shard in shards]


@pytest.mark.parametrize(("record_format", "max_records"), [("tokens", 30), ("text", 6)])
def test_shards_end_where_the_footers_foretell_too_many_records(
    corpus: Path, tmp_path: Path, record_format: Format, max_records: int
) -> None:
    expected = rows_of_shards(corpus, max_records, record_format)
    assert 3 < len(expected) < len(ROWS)
    manifest = built(config_of(corpus, format=record_format, max_records=max_records), tmp_path)
    shards = manifest.splits["train"].shards
    assert [shard.documents for shard in shards] == expected
    for shard in shards:
        assert shard.records <= max_records or shard.documents in ROWS
    verify(str(tmp_path))


def test_what_is_written_does_not_depend_on_the_limit(corpus: Path, tmp_path: Path) -> None:
    expected = [token for ids in reference_ids(documents_of((corpus / "a").glob("*.parquet"))) for token in ids]
    for max_records in (1, 30, 25_000):
        output = tmp_path / str(max_records)
        shards = built(config_of(corpus, max_records=max_records), output).splits["train"].shards
        assert [token for record in read_ids(output / "a", "train") for token in record] == expected
        assert len(shards) == len(rows_of_shards(corpus, max_records, "tokens"))


def test_the_default_is_25000_records(corpus: Path, tmp_path: Path) -> None:
    manifest = built(config_of(corpus), tmp_path)
    before = contents(tmp_path)
    assert built(config_of(corpus, max_records=25_000), tmp_path) == manifest
    assert contents(tmp_path) == before


def test_another_limit_is_another_config(corpus: Path, tmp_path: Path) -> None:
    built(config_of(corpus, max_records=60), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(BroetchenError, match=r"holds a dataset of another config.*--overwrite"):
        built(config_of(corpus), tmp_path)
    assert contents(tmp_path) == before
    build(config_of(corpus), str(tmp_path), overwrite=True, quiet=True)
    fresh = tmp_path / "fresh"
    built(config_of(corpus), fresh)
    assert contents(tmp_path / "a") == contents(fresh / "a")


def test_parquet_knows_no_such_limit(corpus: Path, tmp_path: Path) -> None:
    manifest = built(config_of(corpus, format="parquet", max_records=1), tmp_path)
    (shard,) = manifest.splits["train"].shards
    assert shard.documents == sum(ROWS)
    assert pq.read_table(tmp_path / "a" / shard.file)["text"].to_pylist() == documents_of(
        (corpus / "a").glob("*.parquet")
    )
    # It decides nothing there, so that it is no other config.
    assert built(config_of(corpus, format="parquet"), tmp_path) == manifest


def test_megatrons_format_knows_none_of_the_limits_of_records(corpus: Path, tmp_path: Path) -> None:
    """Nor compression: they decide nothing there, so that they are no other config, and stand in no manifest."""
    manifest = built(config_of(corpus, format="megatron", max_records=1, compression="none", group_size=7), tmp_path)
    (shard,) = manifest.splits["train"].shards
    expected = reference_ids(documents_of((corpus / "a").glob("*.parquet")))
    assert shard.documents == shard.records == sum(ROWS)
    assert read_pairs(tmp_path / "a", "train") == expected
    assert max(map(len, expected)) > MAX_TOKENS
    assert built(config_of(corpus, format="megatron"), tmp_path) == manifest
    assert manifest.config["shards"].keys() == {"target_size"}
    assert manifest.config["records"] == {"format": "megatron", "add_bos": False, "add_eos": True}


def contents(folder: Path) -> Sequence[tuple[str, bytes]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in paths]
