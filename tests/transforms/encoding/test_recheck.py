"""An engine that errs is found out: by the probe, and by documents that are encoded again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.documents import ROOT
from transforms.encoding import recheck
from transforms.encoding.pool import borrow_encoder
from transforms.encoding.recheck import EnginesDifferError, check_probe, check_some, engine_version, probe_digest
from transforms.segments import code_points
from transforms.tokenizer.file import load_tokenizer
from transforms.tokenizer.spec import TokenizerSpec

PATH = str(ROOT / "samples" / "tokenizer.json")
# The engines differ in it, since Python and tokenizers normalize by other versions of Unicode.
UNAGREED = "a \U0001e036 b"


@pytest.fixture
def tokenizer() -> TokenizerSpec:
    """A tokenizer for a process that has not tried the probe."""
    check_probe.cache_clear()
    return TokenizerSpec(PATH, load_tokenizer(PATH).sha256, None, None, special_tokens="text")


@pytest.fixture
def erring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets gigatoken encode characters that it encodes otherwise than `tokenizers`."""
    agreed = np.ones_like(code_points.agreed())
    monkeypatch.setattr(code_points, "agreed", lambda: agreed)


def check(tokenizer: TokenizerSpec, texts: list[str], engine: str = "gigatoken", first_row: int = 0) -> None:
    array = pa.array(texts, pa.large_string())
    with borrow_encoder(tokenizer, engine) as encoder:  # type: ignore[arg-type]
        encoded = encoder.encode(array)
    rows = np.arange(first_row, first_row + len(texts))
    check_some(tokenizer, engine, ("a.parquet", 3), rows, array, encoded)  # type: ignore[arg-type]


def test_engines_that_agree_pass(tokenizer: TokenizerSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe_digest(tokenizer, "gigatoken") == probe_digest(tokenizer, "tokenizers")
    check_probe(tokenizer, "gigatoken", probe_digest(tokenizer, "tokenizers"))
    monkeypatch.setattr(recheck, "ONE_IN", 1)
    check(tokenizer, ["Käse und Brot", UNAGREED, "", "a" * (200 << 10), "ü" * (100 << 10)])


@pytest.mark.usefixtures("erring")
def test_the_probe_finds_an_engine_that_errs(tokenizer: TokenizerSpec) -> None:
    expected = probe_digest(tokenizer, "tokenizers")
    with pytest.raises(EnginesDifferError, match=r"gigatoken .* gives other ids on this machine") as caught:
        check_probe(tokenizer, "gigatoken", expected)
    assert caught.value.engine == engine_version("gigatoken")


@pytest.mark.usefixtures("erring")
@pytest.mark.parametrize("text", [UNAGREED, UNAGREED + "x" * (70 << 10)])
def test_a_document_that_is_encoded_otherwise_is_named(
    tokenizer: TokenizerSpec, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(recheck, "ONE_IN", 1)
    with pytest.raises(
        EnginesDifferError, match=r"a\.parquet: row group 3, row 12 \(from 0\): gigatoken .* at position"
    ):
        check(tokenizer, ["Käse", "Brot", text, "Wein"], first_row=10)


@pytest.mark.usefixtures("erring")
def test_what_lies_behind_the_first_64_kib_is_not_looked_at(
    tokenizer: TokenizerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recheck, "ONE_IN", 1)
    check(tokenizer, ["x " * (40 << 10) + UNAGREED])


@pytest.mark.usefixtures("erring")
def test_the_reference_is_not_held_against_itself(tokenizer: TokenizerSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recheck, "ONE_IN", 1)
    check(tokenizer, [UNAGREED], "tokenizers")


def test_a_tokenizer_without_tokens_for_the_probe_has_a_digest(tmp_path: Path) -> None:
    found = set()
    for number, word in enumerate(("https", "Brot")):
        model = {"type": "WordLevel", "vocab": {word: 0}, "unk_token": "<unk>"}
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
        spec = TokenizerSpec(str(path), load_tokenizer(str(path)).sha256, None, None, special_tokens="text")
        found.add(probe_digest(spec, "tokenizers"))
        check_probe(spec, "tokenizers", probe_digest(spec, "tokenizers"))
    assert len(found) == 1


@given(st.text(max_size=20), st.integers(0, 2**20), st.integers(0, 2**40))
def test_the_same_documents_are_chosen_in_every_run_and_however_they_are_batched(
    path: str, group: int, first: int
) -> None:
    rows = np.arange(first, first + 50)
    chosen = recheck._chosen((path, group), rows)
    assert chosen.tolist() == [bool(recheck._chosen((path, group), rows[i : i + 1])[0]) for i in range(50)]


@pytest.mark.parametrize("group", range(3))
def test_about_one_document_in_ten_thousand_is_chosen(group: int) -> None:
    amounts = [int(recheck._chosen((f"{file}.parquet", group), np.arange(1000)).sum()) for file in range(1000)]
    assert 60 < sum(amounts) < 140
    assert max(amounts) <= 4
