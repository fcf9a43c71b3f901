"""`verify --against-source`: row groups encoded again by `tokenizers`, and compared with the datasets."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines.config.mix import load_config, source_path
from beam_pipelines.jobs.verify import AgainstSource, verify
from tests.campaign.hostile_build import build_by_steps
from tests.support.corpora import write_parquet
from tests.transforms.dataset.built_outputs import (
    GROUPS,
    build_output,
    change_manifest,
    make_older,
    manifest_json,
    reseal,
    told,
    write_mix,
)
from transforms.arrayrecord.example import decode_ids, decode_text, encode_ids, encode_texts
from transforms.arrayrecord.reader import RecordReader
from transforms.arrayrecord.writer import ShardWriter
from transforms.dataset.against_source import choose_row_groups, source_findings
from transforms.dataset.manifest import find_manifests
from transforms.errors import BroetchenError

ALL = 10**6
FORMATS: dict[str, dict[str, Any]] = {
    "both": {"max_tokens": 5, "add_bos": True, "add_eos": True},
    "bare": {"max_tokens": 16},
    "text": {"format": "text"},
    "parquet": {"format": "parquet"},
    "megatron": {"format": "megatron", "add_eos": True},
}
EOS = {"max_tokens": 16, "add_eos": True}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: build_output(tmp_path_factory.mktemp(name), records=records, tokens=1500)
        for name, records in FORMATS.items()
    }


@pytest.fixture
def copied(outputs: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copies an output with its source."""

    def copy(name: str) -> Path:
        shutil.copytree(outputs[name].parent, tmp_path, dirs_exist_ok=True)
        return tmp_path / "out"

    return copy


def found_of(output: Path, number: int = ALL, seed: int = 0) -> list[tuple[str, str]]:
    """Kinds and lines, without the dataset's folder."""
    checks, found = choose_row_groups(
        find_manifests(str(output)), number, seed, lambda shown: source_path(shown, str(output.parent))
    )
    found += [one for check in checks for one in source_findings(check)]
    return [(one.kind, one.text.removeprefix(f"{output}/a: ")) for one in found]


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_built_is_what_the_source_encodes_to(outputs: dict[str, Path], name: str) -> None:
    assert len(manifest_json(outputs[name])["source"][1]["row_groups"]) > 1
    assert found_of(outputs[name]) == []


WORDS = ["Brötchen ", "👍🏽", "a", "\u0301", "lang" * 9, "1234", "\n\n", "Größe", "ﬁ"]


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 30))])
@pytest.mark.parametrize("record_format", ["tokens", "text", "parquet", "megatron"])
def test_any_cut_of_any_corpus_is_what_the_source_encodes_to(tmp_path: Path, record_format: str, seed: int) -> None:
    """Documents that are cut, cut twice, or put back since no cut of theirs fits, among them."""
    chance = random.Random(seed)
    rows: list[Any] = ["".join(chance.choices(WORDS, k=chance.choice([1, 1, 3, 30]))) for _ in range(60)]
    rows = [None if chance.random() < 0.1 else row for row in rows]
    groups = [rows[start : start + 6] for start in range(0, 60, 6)]
    records: dict[str, Any] = {"format": record_format}
    if record_format == "tokens":
        records |= {"max_tokens": chance.choice([1, 4, 64]), "add_bos": chance.random() < 0.5}
    if record_format == "megatron":
        records |= {"add_bos": chance.random() < 0.5, "add_eos": chance.random() < 0.5}
    datasets = {
        "a": {
            "source": "a/*.parquet",
            "tokens": chance.randrange(1, 900),
            "eval_tokens": chance.choice([1, 2, 3, 50]),
            "order": chance.choice(["sequential", "shuffled"]),
        }
    }
    mix = write_mix(
        tmp_path,
        {"0": groups[:4], "1": groups[4:]},
        records=records,
        datasets=datasets,
        shards={"target_size": 300},
        on_shortfall="keep",
    )
    build_by_steps(load_config(str(mix)), str(tmp_path / "out"))
    assert found_of(tmp_path / "out") == []
    assert told(tmp_path / "out", "problem") == []


def test_the_same_seed_chooses_the_same_row_groups(outputs: dict[str, Path]) -> None:
    manifests = find_manifests(str(outputs["both"]))

    def chosen(number: int, seed: int) -> list[tuple[str, int]]:
        checks, _ = choose_row_groups(manifests, number, seed, str)
        return [(check.shown, check.row_group) for check in checks]

    assert len(set(chosen(3, 7))) == 3
    assert chosen(3, 7) == chosen(3, 7)
    assert len({tuple(chosen(3, seed)) for seed in range(9)}) > 3
    assert len(chosen(ALL, 1)) == sum(len(entry.row_groups) for entry in manifests[f"{outputs['both']}/a"].source)


def rewrite_record(path: Path, number: int, change: Callable[[Any], Any]) -> None:
    """Writes a shard of ids or text again, with one record changed."""
    with RecordReader(str(path)) as reader:
        records = list(reader)
    try:
        ids = change(decode_ids(records[number]).tolist())
        records[number] = encode_ids(np.array(ids, np.uint32), np.array([0, len(ids)]))[0]
    except BroetchenError:
        records[number] = encode_texts([change(decode_text(records[number]).decode()).encode()])[0]
    with ShardWriter(str(path)) as writer:
        writer.write_many(records)


def shard(output: Path, number: int, split: str = "train") -> Path:
    return output / "a" / manifest_json(output)["splits"][split]["shards"][number]["file"]


def test_an_id_that_is_not_the_sources(copied: Callable[[str], Path]) -> None:
    """Though checksums, sums and documents all fit."""
    output = copied("both")
    before = manifest_json(output)["splits"]["train"]["shards"][0]["tokens"]
    with RecordReader(str(shard(output, 1))) as reader:
        ids = decode_ids(reader[0]).tolist()
    rewrite_record(shard(output, 1), 0, lambda ids: [*ids[:2], ids[2] + 1, *ids[3:]])
    reseal(output)
    ((kind, line),) = found_of(output)
    assert kind == "problem"
    assert f": token {before + 2:,} of the dataset is {ids[2] + 1}, and by tokenizers {ids[2]} (1 of " in line


def test_records_that_end_elsewhere(copied: Callable[[str], Path]) -> None:
    output = copied("both")
    with RecordReader(str(shard(output, 0))) as reader:
        records = [decode_ids(record).tolist() for record in reader]
    with ShardWriter(str(shard(output, 0))) as writer:
        ids = [[records[0][0]], records[0][1:], *records[1:]]
        writer.write_many(encode_ids(np.array([*itertools.chain(*ids)], np.uint32), np.cumsum([0, *map(len, ids)])))
    reseal(output)
    assert found_of(output) == [
        ("problem", "a/0.parquet: row group 0: a record ends, or does not end, at token 1 of the dataset")
    ]


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_text_that_is_not_the_sources(copied: Callable[[str], Path], split: str) -> None:
    output = copied("text")
    rewrite_record(shard(output, -1, split), 1, lambda text: text.replace("noch", "nie"))
    reseal(output)
    ((kind, line),) = found_of(output)
    assert kind == "problem"
    assert " of it is not in the dataset at place " in line


def test_shards_that_are_gone(copied: Callable[[str], Path]) -> None:
    output = copied("both")
    shard(output, 0).unlink()
    for kind, line in found_of(output):
        assert kind == "problem"
        assert ": not held against the dataset: " in line
        assert "train-00000-of-" in line


def change_letters(path: Path) -> None:
    """Changes letters of one document in place, as uncompressed parquet has them."""
    content = path.read_bytes()
    assert content.count(b"Satz 1, 3 und noch") == 1
    path.write_bytes(content.replace(b"Satz 1, 3 und noch", b"Satz 1, 3 und doch"))


@pytest.mark.parametrize("records", [EOS, {"format": "text"}])
def test_a_source_whose_letters_have_changed_has_the_same_footer(tmp_path: Path, records: dict[str, Any]) -> None:
    path = tmp_path / "a" / "0.parquet"
    path.parent.mkdir()
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())]), compression="none", use_dictionary=False) as writer:
        for group in GROUPS:
            writer.write_table(pa.table({"text": group}))
    output = build_output(tmp_path, {}, records=records)
    assert found_of(output) == []
    change_letters(path)
    line = "a/0.parquet: row group 1 holds other texts than were built from"
    assert found_of(output) == [("problem", line)]


def test_a_source_that_was_replaced(copied: Callable[[str], Path]) -> None:
    """The new one holds the same texts in other bytes, or other texts."""
    output = copied("both")
    path = output.parent / "a" / "0.parquet"
    size = path.stat().st_size
    for groups in (GROUPS[:6], [[*GROUPS[0], "mehr"], *GROUPS[1:6]], GROUPS[:2]):
        with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
            for group in groups:
                writer.write_table(pa.table({"text": group}))
        found = found_of(output)
        changed = f"a/0.parquet: has changed since it was built from: {path.stat().st_size:,} bytes, not {size:,}"
        if groups == GROUPS[:6]:
            assert {kind for kind, _ in found} == {"warning"}
            assert ("warning", f"{changed}; the texts of row group 0 have not") in found
        elif len(groups) == 2:
            assert (
                "problem",
                f"a/0.parquet: row group 2: is not there; the file has changed since ({changed[13:]}",
            ) in [
                (kind, line.partition(";")[0] + ";" + line.partition(";")[2].partition(";")[0]) for kind, line in found
            ]
        else:
            assert ("problem", changed) in found
            assert ("problem", "a/0.parquet: row group 0 holds other texts than were built from") in found
            # The texts of the other row groups are the same.
            assert ("problem", "a/0.parquet: row group 1 holds other texts than were built from") not in found


def test_a_source_that_is_not_there(copied: Callable[[str], Path]) -> None:
    output = copied("both")
    path = output.parent / "a" / "1.parquet"
    path.unlink()
    (found,) = {line for _, line in found_of(output)}
    assert found == (
        f"a/1.parquet: there is no {path}; relative paths start at the mix config, which --config names, and the hub's "
        "files may lie below --source-root"
    )


def test_a_manifest_that_does_not_say_where_row_groups_begin(copied: Callable[[str], Path]) -> None:
    """Older versions did not say it; a changed file is found all the same."""
    output = copied("both")

    change_manifest(output, make_older)
    unchecked = (
        "not held against its source: its manifest does not say where row groups begin: only whether files have "
    )
    assert found_of(output) == [("unchecked", f"{unchecked}changed is found")]
    write_parquet(output.parent / "a" / "0.parquet", [["anderes"]] * 6)
    assert {kind for kind, _ in found_of(output)} == {"unchecked", "problem"}


def test_starts_that_were_moved(copied: Callable[[str], Path]) -> None:
    output = copied("both")

    def change(manifest: Any) -> None:
        manifest["source"][0]["starts"][2] += 1

    change_manifest(output, change)
    lines = [line for _, line in found_of(output)]
    assert any("row group 1: ends at token " in line for line in lines)
    assert any("row group 2: not held against the dataset: it begins within a record" in line for line in lines)


def test_verify_tells_it_with_all_else(copied: Callable[[str], Path]) -> None:
    output = copied("text")
    against = AgainstSource.chosen(ALL, 3, str(output.parent / "mix.yaml"))
    found = verify(str(output), against=against)
    assert (found.warnings, found.unchecked) == ((), ())
    rewrite_record(shard(output, 0), 1, lambda text: text.replace("noch", "nie"))
    reseal(output)
    with pytest.raises(BroetchenError) as caught:
        verify(str(output), against=against)
    assert "a/0.parquet: row group 0: document 1 of it is not in the dataset at place 1" in str(caught.value)
