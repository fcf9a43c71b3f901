"""The findings of `verify` on traces that are missing, changed, short, foreign, or that somebody has written again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from beam_pipelines.jobs.verify import verify
from tests.transforms.dataset.built_outputs import build_output, change_manifest, findings_of, manifest_json, told
from transforms.dataset.manifest import ShardEntry, TraceEntry
from transforms.dataset.trace import find_records, origin_of
from transforms.errors import BroetchenError

TRACE = "a/_trace/train-00001-of-00003.parquet"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name in ("tokens", "text"):
        dataset = {"source": "a/*.parquet", "tokens": 900, "eval_tokens": 100, "trace_columns": ["id"]}
        records = {"format": name, "max_tokens": 16, "add_eos": name == "tokens", "trace": True}
        made[name] = build_output(tmp_path_factory.mktemp(name), records=records, datasets={"a": dataset})
    return made


@pytest.fixture
def copied(outputs: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str = "tokens") -> Path:
        return Path(shutil.copytree(outputs[name], tmp_path / "out"))

    return copy


def entry_of(manifest: Any) -> Any:
    return manifest["splits"]["train"]["shards"][1]


def rewrite(output: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Changes a trace, and gives the manifest its size and checksum."""
    path = output / TRACE
    pq.write_table(change(pq.read_table(path)), path)

    def reseal(manifest: Any) -> None:
        content = path.read_bytes()
        entry_of(manifest)["trace"] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    change_manifest(output, reseal)


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    index = table.schema.get_field_index(name)
    return table.set_column(index, table.schema.field(index), values)


@pytest.mark.parametrize(("written", "shards"), [("tokens", 3), ("text", 7)])
def test_a_traced_dataset_is_sound(copied: Callable[[str], Path], written: str, shards: int) -> None:
    output = copied(written)
    assert [shard["trace"]["file"] for shard in manifest_json(output)["splits"]["train"]["shards"]] == [
        f"_trace/train-0000{index}-of-0000{shards}.parquet" for index in range(shards)
    ]
    assert findings_of(output) == []
    verify(str(output), quick=True)


def test_missing(copied: Callable[[], Path]) -> None:
    output = copied()
    (output / TRACE).unlink()
    assert told(output, "problem") == [f"{TRACE}: missing"]
    with pytest.raises(BroetchenError, match=r"00001-of-00003\.parquet: missing$"):
        verify(str(output), quick=True)


def test_changed(copied: Callable[[], Path]) -> None:
    output = copied()
    content = bytearray((output / TRACE).read_bytes())
    content[-20] ^= 1
    (output / TRACE).write_bytes(content)
    assert any(line.startswith(f"{TRACE}: sha256 ") for line in told(output, "problem"))


def test_cut_short(copied: Callable[[], Path]) -> None:
    output = copied()
    size = (output / TRACE).stat().st_size
    (output / TRACE).write_bytes((output / TRACE).read_bytes()[:100])
    assert f"{TRACE}: 100 bytes, not {size:,}" in told(output, "problem")
    with pytest.raises(BroetchenError, match=rf"100 bytes, not {size:,}$"):
        verify(str(output), quick=True)


def test_foreign(copied: Callable[[], Path]) -> None:
    output = copied()
    foreign = output / "a" / "_trace" / "train-00003-of-00003.parquet"
    shutil.copy(output / TRACE, foreign)
    assert told(output, "problem") == ["a/_trace/train-00003-of-00003.parquet: not in the manifest"]


def test_a_link_is_not_followed(copied: Callable[[], Path], tmp_path: Path) -> None:
    output = copied()
    shutil.move(output / TRACE, tmp_path / "elsewhere")
    (output / TRACE).symlink_to(tmp_path / "elsewhere")
    assert told(output, "problem")


def test_one_that_the_config_does_not_have(copied: Callable[[], Path]) -> None:
    output = copied()
    change_manifest(output, lambda manifest: manifest["config"]["records"].pop("trace"))
    assert "a/train-00001-of-00003.arecord: has a trace, and by its config none" in told(output, "problem")


def test_one_that_the_manifest_does_not_name(copied: Callable[[], Path]) -> None:
    output = copied()
    change_manifest(output, lambda manifest: entry_of(manifest).pop("trace"))
    assert told(output, "problem") == [
        "a/train-00001-of-00003.arecord: has no trace of its name in the manifest, and its config has",
        f"{TRACE}: not in the manifest",
    ]


def test_that_of_another_shard(copied: Callable[[], Path]) -> None:
    output = copied()

    def change(manifest: Any) -> None:
        entry_of(manifest)["trace"] = manifest["splits"]["train"]["shards"][0]["trace"]

    change_manifest(output, change)
    found = told(output, "problem")
    assert "a/train-00001-of-00003.arecord: has no trace of its name in the manifest, and its config has" in found
    # The same file is held against the second shard, whose rows are others.
    assert any("tells of rows that its shard cannot have" in line for line in found)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.slice(1), "its records do not follow each other after row 0"),
        (lambda table: table.slice(0, len(table) - 1), "{less} records, and its shard has {records}"),
        (lambda table: table.drop_columns(["id"]), "has other columns than a trace of its dataset"),
        (lambda table: table.append_column("more", table["id"]), "has other columns than a trace of its dataset"),
        (
            lambda table: with_column(table, "first_token", table["last_token"]),
            "a row after row 0 tells of no part of a document",
        ),
        (
            lambda table: with_column(table, "last_token", pc.add(table["last_token"], 1)),
            "{more} tokens, and its shard has {tokens}",
        ),
        (
            lambda table: with_column(table, "row_group", pc.add(table["row_group"], 100).cast(pa.int32())),
            "tells of rows that its shard cannot have",
        ),
    ],
)
def test_one_that_was_written_anew(
    copied: Callable[[], Path], change: Callable[[pa.Table], pa.Table], said: str
) -> None:
    output = copied()
    entry = entry_of(manifest_json(output))
    rewrite(output, change)
    numbers = {"records": entry["records"], "less": entry["records"] - 1, "tokens": entry["tokens"]}
    expected = said.format(**numbers, more=entry["tokens"] + entry["records"])
    assert any(line.startswith(f"{TRACE}: {expected}") for line in told(output, "problem"))


def test_times_in_nanoseconds_are_told_without_pandas(tmp_path: Path) -> None:
    """Commands leave pandas out, without which Python has no such times: what is told is what can be looked for."""
    when = pa.array([1_700_000_000_000_000_001], pa.timestamp("ns"))
    offsets = pa.array([0, 1], pa.int32())
    table = pa.table(
        {
            "record": pa.array([0], pa.int64()),
            "when": when,
            "whens": pa.ListArray.from_arrays(offsets, when),
            "within": pa.StructArray.from_arrays([when], ["when"]),
            "by": pa.MapArray.from_arrays(offsets, pa.array(["a"]), when),
            "took": when.cast(pa.int64()).cast(pa.duration("ns")),
        }
    )
    (tmp_path / "_trace").mkdir()
    file = "_trace/train-00000-of-00001.parquet"
    pq.write_table(table, tmp_path / file)
    trace = TraceEntry(file=file, bytes=1, sha256="0" * 64)
    shard = ShardEntry(
        file="train-00000-of-00001.arecord", tokens=1, documents=1, records=1, bytes=1, sha256="0" * 64, trace=trace
    )
    told, text = origin_of(str(tmp_path), shard, 0), "2023-11-14 22:13:20.000000001"
    assert told == {
        "record": 0,
        "when": text,
        "whens": [text],
        "within": {"when": text},
        "by": [("a", text)],
        "took": "1700000000000000001",
    }
    assert list(find_records(str(tmp_path), shard, ["when"], text)) == [(0, told)]
