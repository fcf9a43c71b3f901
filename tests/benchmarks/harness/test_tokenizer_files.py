"""The tokenizers of the benchmarks: gigatoken encodes each, and the one like GPT-NeoX's has its runs of spaces."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.harness.tokenizer_files import NAMES, SAMPLE, find_tokenizer, with_runs_of_spaces
from tests.support.documents import ROOT
from transforms.encoding.encoders import GigatokenEncoder, ReferenceEncoder
from transforms.tokenizer.file import load_tokenizer

TEXTS = [
    "zwei  Leerzeichen,\n        Einrückung, 1234 m² ½ 😀\u00ad",
    " " * 24,
    " " * 25,
    " " * 49 + "x",
    "",
    "Käse \U00020bb7",
]


def ids_by_both(path: Path) -> tuple[list[int], list[int]]:
    tokenizer, texts = load_tokenizer(str(path)), pa.array(TEXTS, pa.large_string())
    fast, reference = (kind(tokenizer, "text").encode(texts).ids for kind in (GigatokenEncoder, ReferenceEncoder))
    return fast.tolist(), reference.tolist()


def test_runs_of_spaces_come_after_the_vocabulary_and_are_found(tmp_path: Path) -> None:
    before = json.loads(SAMPLE.read_text())
    after = with_runs_of_spaces(before)
    vocabulary = after["model"]["vocab"]
    assert len(vocabulary) == len(before["model"]["vocab"]) - 13
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    runs = [token for token in after["added_tokens"] if not token["special"]]
    assert [len(token["content"]) for token in runs] == list(range(24, 1, -1))
    assert [token["id"] for token in runs] == list(range(len(vocabulary), len(vocabulary) + 23))
    assert all(token["normalized"] for token in runs)

    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(after))
    fast, reference = ids_by_both(path)
    assert fast == reference
    assert {runs[0]["id"], runs[16]["id"], runs[-1]["id"]} <= set(fast)


def test_a_file_is_found_by_its_path(tmp_path: Path) -> None:
    published = tmp_path / "published" / "tokenizer.json"
    published.parent.mkdir()
    published.write_bytes(SAMPLE.read_bytes())
    found = find_tokenizer(str(published), tmp_path, tmp_path)
    assert (found.name, found.path) == ("published", published)
    with pytest.raises(FileNotFoundError, match="wanted sample, nanochat, neox, or"):
        find_tokenizer(str(tmp_path / "none.json"), tmp_path, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_gigatoken_encodes_with_each(name: str, tmp_path: Path) -> None:
    found = find_tokenizer(name, ROOT / "samples" / "corpora", tmp_path)
    assert find_tokenizer(name, ROOT / "samples" / "corpora", tmp_path) == found
    fast, reference = ids_by_both(found.path)
    assert fast == reference
    assert load_tokenizer(str(found.path), eos_token="<|eos|>").eos_id is not None
