"""Sources and tokenizers that are damaged, odd, or not as planned: findings of the hostile input campaign."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines.config.mix import load_config
from tests.campaign import hostile_parquet
from tests.campaign.hostile_build import build_by_steps, write_config
from tests.support.corpora import write_parquet
from tests.support.small_tokenizers import as_file, byte_level
from transforms.encoding.encoders import GigatokenEncoder, ReferenceEncoder
from transforms.encoding.unfit import GigatokenUnfitError
from transforms.errors import BroetchenError, UsageError, listed
from transforms.parquet.columns import unite_schemas
from transforms.parquet.footer import read_footer
from transforms.parquet.texts import read_texts
from transforms.texts import BATCH_TEXT_BYTES
from transforms.tokenizer.file import load_tokenizer

TEXTS = [f"Satz {number} und noch einer." for number in range(40)]


def footer_of(path: Path) -> Any:
    return read_footer(str(path), path.stat().st_size, "text")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: write_parquet(path, [["X" + text for text in TEXTS]]), "has changed since this build planned it"),
        (lambda path: write_parquet(path, [TEXTS[:-1]]), "has changed since this build planned it"),
        (lambda path: write_parquet(path, [[*TEXTS, "mehr"]]), "has changed since this build planned it"),
        (lambda path: write_parquet(path, [TEXTS], column="content"), "has changed since this build planned it"),
        (lambda path: write_parquet(path, []), "has changed since this build planned it"),
        (lambda path: path.write_bytes(path.read_bytes() * 2), "has changed since this build planned it"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "cannot be read as parquet"),
        (Path.unlink, "cannot be opened"),
    ],
)
def test_a_source_that_changes_after_it_was_planned(tmp_path: Path, change: Callable[[Path], Any], said: str) -> None:
    path = tmp_path / "a" / "0.parquet"
    write_parquet(path, [TEXTS])
    config = load_config(str(write_config(tmp_path)))
    with pytest.raises(BroetchenError, match=said):
        build_by_steps(config, str(tmp_path / "out"), between=lambda: change(path))
    assert not (tmp_path / "out" / "a" / "manifest.json").exists()


def test_a_row_group_that_holds_other_rows_than_its_footer_says(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, [TEXTS[:5]])
    sound = path.read_bytes()
    footer = len(sound) - 8 - int.from_bytes(sound[-8:-4], "little")
    said = []
    for place in range(footer, len(sound) - 8):
        if sound[place] == 10:  # 5, in zigzag encoding: of the file, of the row group, or of a column
            data = bytearray(sound)
            data[place] = 14
            path.write_bytes(data)
            try:
                list(read_texts(str(path), range(len(footer_of(path).row_groups)), "text"))
            except BroetchenError as error:
                said.append(str(error))
    assert any("it holds 5 rows, and by the footer 7" in message for message in said)


def test_page_checksums_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": TEXTS}), path, compression="none", use_dictionary=False, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[data.index(b"Satz 7")] ^= 1
    path.write_bytes(data)
    with pytest.raises(BroetchenError, match=r"row group 0 cannot be read .*CRC"):
        list(read_texts(str(path), [0], "text"))


@pytest.mark.parametrize("seed", range(6))
def test_encrypted_parquet_is_refused(tmp_path: Path, seed: int) -> None:
    outcome = hostile_parquet.encrypted(random.Random(seed), tmp_path)
    assert outcome.ending == "error"
    assert "is encrypted parquet" in outcome.detail


def test_a_row_group_that_lies_outside_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, [TEXTS])
    data = path.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little") + 8
    path.write_bytes(data[:50] + data[-footer:])
    with pytest.raises(BroetchenError, match=r"the parquet footer is damaged .*row group 0 lies at 4 to"):
        footer_of(path)


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]), path)
    with pytest.raises(BroetchenError, match="has 2 columns 'text'"):
        footer_of(path)


def test_the_size_of_batches_is_that_of_the_text_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = 2000
    nested = [{"a": 1, "b": 2, "c": 3}] * rows
    pq.write_table(pa.table({"n": nested, "text": [f"{row} " * 2000 for row in range(rows)]}), path)
    batches = [batch for _, batch in read_texts(str(path), [0], "text")]
    assert sum(batch.rows for batch in batches) == rows
    assert max(batch.text_bytes for batch in batches) < 2 * BATCH_TEXT_BYTES


@pytest.mark.parametrize("with_columns", [False, True])
def test_much_text_in_few_bytes_comes_in_small_batches(tmp_path: Path, with_columns: bool) -> None:
    path = tmp_path / "a.parquet"
    values: Any = pa.array(["Brötchen " * 5000, "", "kurz"])
    indices = np.random.default_rng(1).integers(0, 3, 3000)
    texts = pa.DictionaryArray.from_arrays(pa.array(indices, mask=indices % 7 == 6), values)
    pq.write_table(pa.table({"id": range(3000), "text": texts}), path)
    schema = unite_schemas([(str(path), pq.read_schema(path))], "text") if with_columns else None
    batches = [batch for _, batch in read_texts(str(path), [0], "text", schema=schema)]
    assert max(batch.text_bytes for batch in batches) <= BATCH_TEXT_BYTES
    found = [text for batch in batches for text in batch.texts.to_pylist()]
    assert found == [text for text in texts.to_pylist() if text]
    if with_columns:
        kept = [row for batch in batches if batch.table is not None for row in batch.table["id"].to_pylist()]
        assert kept == [row for row, text in enumerate(texts.to_pylist()) if text]


def test_gigatoken_is_not_used_with_ids_that_would_take_all_memory() -> None:
    tokenizer = byte_level()
    tokenizer["model"]["vocab"] = {token: number + 2**31 for token, number in tokenizer["model"]["vocab"].items()}
    with pytest.raises(GigatokenUnfitError, match="takes memory for each id up to the largest"):
        GigatokenEncoder(as_file(tokenizer), "text")
    assert ReferenceEncoder(as_file(tokenizer), "text").encode(pa.array(["a"], pa.large_string())).ids.tolist() == [
        2**31 + ord("a")
    ]


def test_a_tokenizer_that_has_no_token_for_some_text() -> None:
    model = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "nowhere"}
    encoder = ReferenceEncoder(as_file({**byte_level(pre_tokenizer={"type": "Whitespace"}), "model": model}), "text")
    with pytest.raises(BroetchenError, match="tokenizers cannot encode some of the text"):
        encoder.encode(pa.array(["b"], pa.large_string()))


@pytest.mark.parametrize("value", [5, True, [], ["<|eos|>"], 1.5, {"content": 5}])
def test_a_tokenizer_config_whose_token_is_no_text(tmp_path: Path, value: Any) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(byte_level()))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": value}))
    assert load_tokenizer(str(tmp_path)).eos_id is None


@pytest.mark.parametrize(
    ("content", "said"),
    [("[" * 100_000, "nested too deep"), ("1" * 10_000, "Exceeds the limit"), ("-1" + "0" * 9999, "")],
)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_json_that_python_does_not_read(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(byte_level()))
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=rf"{name}: JSON that cannot be read \({said}"):
        load_tokenizer(str(tmp_path))


def test_messages_about_a_config_have_an_end(tmp_path: Path) -> None:
    path = tmp_path / "mix.yaml"
    datasets = ", ".join(f"d{number}: {{share: 1%, source: x}}" for number in range(2000))
    path.write_text(f"name: a\ntokenizer: {{path: ./t.json}}\ntotal_tokens: 1M\ndatasets: {{{datasets}}}\n")
    for overrides in ({}, {"x" * 10_000: "1"}, {"datasets.d1.tokens": "5", "datasets.d1.share": "null"}):
        with pytest.raises(UsageError) as raised:
            load_config(str(path), overrides=overrides)
        assert len(str(raised.value)) < 2000


def test_long_lists_are_cut() -> None:
    assert listed(range(12), 10) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
    assert listed(["a"]) == "a"
