"""Parquet out of parquet: the source's other columns, as `datasets` reads them back."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.command import run_command
from tests.support.corpora import SAMPLES, TOKENIZER

TEXTS = ["eins zwei drei", "vier fünf sechs sieben", "acht neun", "zehn elf zwölf"]


def write_mix(folder: Path, tokens: int = 20, **dataset: Any) -> Path:
    config = folder / "mix.yaml"
    config.write_text(
        f"name: columns\ntokenizer: {{path: {TOKENIZER}}}\nshards: {{target_size: 1KiB}}\n"
        f"datasets:\n  a: {{source: 'a/*.parquet', tokens: {tokens}, on_shortfall: keep}}\n"
    )
    return config


def write_files(folder: Path, tables: Sequence[pa.Table], **settings: Any) -> None:
    (folder / "a").mkdir()
    for number, table in enumerate(tables):
        pq.write_table(table, folder / "a" / f"{number}.parquet", **settings)


def vocab(folder: Path, tokens: int = 1000) -> list[dict[str, Any]]:
    """The rows of a built corpus, as `datasets` reads them."""
    done = run_command("vocab", write_mix(folder, tokens), "--output", folder / "out", "--quiet")
    assert done.returncode == 0, done.stderr
    files = sorted(str(path) for path in (folder / "out" / "a").glob("*.parquet"))
    assert len({pq.read_schema(file).serialize().to_pybytes() for file in files}) == 1
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(folder / "cache"))
    return [dict(row) for row in loaded]


def refused(folder: Path, tokens: int = 1000) -> str:
    done = run_command("vocab", write_mix(folder, tokens), "--output", folder / "out", "--quiet")
    assert done.returncode == 1
    assert "damaged" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((folder / "out").glob("a/*.parquet"))
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture(autouse=True)
def _quiet() -> None:
    datasets.disable_progress_bars()


def test_files_with_other_columns_become_one_table(tmp_path: Path) -> None:
    first = {"text": TEXTS[:2], "n": pa.array([1, 2], pa.int8()), "meta": pa.nulls(2)}
    second = {"text": TEXTS[2:], "n": [0.5, None], "meta": [{"lang": "de"}, None], "url": ["u", None]}
    write_files(tmp_path, [pa.table(first), pa.table(second)])
    assert vocab(tmp_path) == [
        {"text": TEXTS[0], "n": 1.0, "meta": None, "url": None},
        {"text": TEXTS[1], "n": 2.0, "meta": None, "url": None},
        {"text": TEXTS[2], "n": 0.5, "meta": {"lang": "de"}, "url": "u"},
        {"text": TEXTS[3], "n": None, "meta": None, "url": None},
    ]


def test_odd_types_are_copied(tmp_path: Path) -> None:
    """Rows without text among them, which are left out, so that all columns are filtered."""
    columns: dict[str, Any] = {
        "view": pa.array(["a", None, "b", "c"], pa.string_view()),
        "bytes": pa.array([b"a", None, b"b", b"c"], pa.binary_view()),
        "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}', None, "[]", "1"])),
        "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)] * 4, pa.binary(16))),
        "map": pa.array([[("k", 1)], None, [], [("l", 2)]], pa.map_(pa.string(), pa.int32())),
        "pair": pa.array([[1, 2]] * 4, pa.list_(pa.int8(), 2)),
        "label": pa.array(["x", "y", "x", None]).dictionary_encode(),
        "inner": pa.array([{"a": None, "b": 1}, None, {"a": None, "b": 2}, {"a": None, "b": None}]),
        "none": pa.nulls(4),
    }
    write_files(tmp_path, [pa.table({"text": ["eins", None, "zwei", ""], **columns})])
    rows = vocab(tmp_path)
    assert [row.pop("text") for row in rows] == ["eins", "zwei"]
    kept = {name: pa.array(column).to_pylist() for name, column in columns.items()}
    kept["json"] = ['{"a": 1}', None, "[]", "1"]
    kept["uuid"] = [bytes(16)] * 4
    kept["map"] = [[{"key": "k", "value": 1}], None, [], [{"key": "l", "value": 2}]]
    assert rows == [{name: values[row] for name, values in kept.items()} for row in (0, 2)]


def test_a_text_column_of_views_is_text(tmp_path: Path) -> None:
    write_files(tmp_path, [pa.table({"text": pa.array(TEXTS, pa.string_view())})])
    assert [row["text"] for row in vocab(tmp_path)] == TEXTS


def test_every_shard_has_the_same_schema_and_so_has_the_cut_one(tmp_path: Path) -> None:
    """The budget ends in a document of which only a part is written."""
    group = pa.table({"text": TEXTS * 50, "id": pa.array(range(200), pa.int16()), "s": [{"a": None}] * 200})
    other = pa.table({"text": TEXTS * 50, "id": pa.array(range(200), pa.int64()), "s": [{"a": "x"}] * 200})
    write_files(tmp_path, [group, other], row_group_size=20, use_dictionary=False)
    rows = vocab(tmp_path, 1501)
    assert len(list((tmp_path / "out" / "a").glob("train-*.parquet"))) > 2
    assert {type(row["id"]) for row in rows} == {int}
    done = run_command("verify", tmp_path / "out")
    assert done.returncode == 0, done.stderr


def test_96_bit_times_are_copied(tmp_path: Path) -> None:
    times = [datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999), datetime.datetime(2024, 2, 29), None, None]
    table = pa.table({"text": TEXTS, "t": pa.array(times, pa.timestamp("us")), "l": [[times[1]], None, [], None]})
    write_files(tmp_path, [table], use_deprecated_int96_timestamps=True)
    assert [row["t"] for row in vocab(tmp_path)] == times


@pytest.mark.parametrize("nested", [False, True])
def test_96_bit_times_of_far_years_are_refused(tmp_path: Path, nested: bool) -> None:
    """Nanoseconds since 1970 in 64 bits end in 2262, and run over without a word."""
    far = np.array(["2020-01-01", "9999-12-31", "2021-01-01", "2022-01-01"], "datetime64[us]")
    times = pa.array(far)
    column = pa.ListArray.from_arrays(list(range(5)), times) if nested else times
    write_files(tmp_path, [pa.table({"text": TEXTS, "t": column})], use_deprecated_int96_timestamps=True)
    line = refused(tmp_path)
    assert "0.parquet: row group 0 cannot be read: column 't' holds times (INT96) beyond the years 1677 to 2262" in line


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    columns = [pa.array(TEXTS), pa.array([1] * 4), pa.array([2] * 4)]
    write_files(tmp_path, [pa.Table.from_arrays(columns, names=["text", "m", "m"])])
    assert "0.parquet: has 2 columns 'm', and nothing tells them apart; rename all but one" in refused(tmp_path)


def test_a_value_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path, [pa.table({"text": TEXTS, "n": [2**53 + 1] * 4}), pa.table({"text": TEXTS, "n": [0.5] * 4})])
    line = refused(tmp_path)
    assert "0.parquet: row group 0: column 'n' cannot be double, as other files have it" in line


def test_what_pyarrow_cannot_read_is_not_called_damaged(tmp_path: Path) -> None:
    """Lists of a fixed size of which one is null."""
    write_files(
        tmp_path, [pa.table({"text": TEXTS, "l": pa.array([[1, 2], None, None, None], pa.list_(pa.int8(), 2))})]
    )
    line = refused(tmp_path)
    assert "0.parquet: row group 0 cannot be read by pyarrow" in line
    # The text alone can.
    done = run_command("build", write_mix(tmp_path), "--output", tmp_path / "ids", "--quiet")
    assert done.returncode == 0, done.stderr


def test_the_sample_corpora_can_be_loaded(tmp_path: Path) -> None:
    config = SAMPLES.parent / "mix_configs" / "demo.yaml"
    done = run_command("vocab", config, "--output", tmp_path / "out", "--set", "total_tokens=50_000", "--quiet")
    assert done.returncode == 0, done.stderr
    folders = [path.parent for path in (tmp_path / "out").glob("*/manifest.json")]
    assert len(folders) == 5
    for folder in folders:
        files = sorted(str(path) for path in folder.glob("train-*.parquet"))
        loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
        assert loaded.num_rows == sum(pq.read_metadata(file).num_rows for file in files) > 0
