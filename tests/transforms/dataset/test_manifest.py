"""The manifest as others find it: its bytes, what is read back, and what is said where it is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest

from transforms.dataset.manifest import (
    Manifest,
    QuarantineEntry,
    ShardEntry,
    SourceEntry,
    SplitEntry,
    TokenizerEntry,
    find_manifests,
    manifest_path,
    read_manifest,
    tokenizer_of,
    write_manifest,
)
from transforms.errors import BroetchenError
from transforms.tokenizer.spec import TokenizerSpec

CONFIG = {
    "records": {"format": "tokens", "max_tokens": 8},
    "dataset": {"tokens": 5, "on_shortfall": "fail", "text_column": "text"},
}
MANIFEST = Manifest(
    format_version=1,
    mix="mix",
    dataset="german",
    fingerprint="0123",
    config=CONFIG,
    tokenizer=TokenizerEntry(
        path="../tokenizer-89/tokenizer.json", sha256="89", vocab_size=9, bos_id=None, eos_id=0, special_tokens="text"
    ),
    splits={
        "train": SplitEntry(
            budget=5,
            tokens=4,
            missing=1,
            documents=2,
            records=3,
            bytes=20,
            shards=[
                ShardEntry(file="train-00000-of-00001.arecord", tokens=4, documents=2, records=3, bytes=20, sha256="ab")
            ],
        )
    },
    skipped={"null": 1},
    source=[SourceEntry(path="ü.parquet", size=7, footer_sha256="cd", checksum=None, row_groups=[0, 2])],
    versions={"broetchen": "0.1"},
)
WRITTEN = """\
{
 "format": "broetchen-dataset",
 "format_version": 1,
 "mix": "mix",
 "dataset": "german",
 "fingerprint": "0123",
 "config": {
  "records": {
   "format": "tokens",
   "max_tokens": 8
  },
  "dataset": {
   "tokens": 5,
   "on_shortfall": "fail",
   "text_column": "text"
  }
 },
 "tokenizer": {
  "path": "../tokenizer-89/tokenizer.json",
  "sha256": "89",
  "vocab_size": 9,
  "bos_id": null,
  "eos_id": 0,
  "special_tokens": "text"
 },
 "splits": {
  "train": {
   "budget": 5,
   "tokens": 4,
   "missing": 1,
   "documents": 2,
   "records": 3,
   "bytes": 20,
   "documents_put_back": 0,
   "shards": [
    {
     "file": "train-00000-of-00001.arecord",
     "tokens": 4,
     "documents": 2,
     "records": 3,
     "bytes": 20,
     "sha256": "ab"
    }
   ]
  }
 },
 "skipped": {
  "null": 1
 },
 "source": [
  {
   "path": "ü.parquet",
   "size": 7,
   "footer_sha256": "cd",
   "checksum": null,
   "row_groups": [
    0,
    2
   ]
  }
 ],
 "versions": {
  "broetchen": "0.1"
 }
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset in an output."""
    (tmp_path / "out" / "german").mkdir(parents=True)
    write_manifest(str(tmp_path / "out" / "german"), MANIFEST)
    return tmp_path / "out" / "german"


def test_its_bytes_are_these(folder: Path) -> None:
    """Builds of one config are compared file by file, and by other versions too."""
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]
    assert manifest_path(str(folder)) == f"{folder}/manifest.json"
    assert (folder / "manifest.json").read_text(encoding="utf-8") == WRITTEN


def test_it_is_read_back(folder: Path) -> None:
    found = read_manifest(str(folder))
    assert found == MANIFEST
    assert found is not None
    assert found.quarantine == ()
    assert found.splits["train"].documents_put_back == 0


def test_the_quarantine_is_named_where_there_is_one(folder: Path) -> None:
    entry = QuarantineEntry(file="_quarantine/bad-rows-00000.parquet", rows={"null": 1}, bytes=3, sha256="ef")
    held = MANIFEST.model_copy(update={"quarantine": [entry]})
    write_manifest(str(folder), held)
    assert read_manifest(str(folder)) == held
    assert json.loads((folder / "manifest.json").read_bytes())["quarantine"] == [entry.model_dump()]


def test_what_older_versions_did_not_write_is_none(folder: Path) -> None:
    content = json.loads(WRITTEN)
    del content["splits"]["train"]["documents_put_back"]
    (folder / "manifest.json").write_text(json.dumps(content))
    assert read_manifest(str(folder)) == MANIFEST


def test_what_was_read_cannot_be_changed(folder: Path) -> None:
    """Several steps of a job go by the same one."""
    found = read_manifest(str(folder))
    assert found is not None
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        found.splits["train"].tokens = 5


def test_a_folder_without_one_is_no_dataset(folder: Path) -> None:
    assert read_manifest(str(folder.parent)) is None


def refusal_of(folder: Path) -> str:
    with pytest.raises(BroetchenError) as caught:
        read_manifest(str(folder))
    return str(caught.value)


def said(folder: Path, problem: str) -> str:
    return (
        f"{folder}/manifest.json: not a manifest that this version reads ({problem}); "
        "build the dataset again with --overwrite"
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda content: content.update(more=1), "more: Extra inputs are not permitted"),
        (lambda content: content.pop("mix"), "mix: Field required"),
        (lambda content: content.update(format="parquet"), "format: Input should be 'broetchen-dataset'"),
        (
            lambda content: content["splits"]["train"]["shards"][0].pop("sha256"),
            "splits.train.shards.0.sha256: Field required",
        ),
        (
            lambda content: content["source"][0].update(more=1),
            "source.0.more: Extra inputs are not permitted",
        ),
        (lambda content: content["config"].pop("records"), "config: Value error, it lacks records.format"),
        (lambda content: content["config"]["records"].pop("format"), "config: Value error, it lacks records.format"),
        (
            lambda content: content["config"]["records"].pop("max_tokens"),
            "config: Value error, it lacks records.max_tokens",
        ),
        (lambda content: content["config"].pop("dataset"), "config: Value error, it lacks dataset.tokens"),
        (lambda content: content["config"]["dataset"].pop("tokens"), "config: Value error, it lacks dataset.tokens"),
        (
            lambda content: content["config"]["dataset"].pop("on_shortfall"),
            "config: Value error, it lacks dataset.on_shortfall",
        ),
        (
            lambda content: content["config"]["dataset"].pop("text_column"),
            "config: Value error, it lacks dataset.text_column",
        ),
    ],
)
def test_one_of_another_form_is_refused(folder: Path, change: Callable[[Any], object], problem: str) -> None:
    """By the first thing that is wrong with it."""
    content = json.loads(WRITTEN)
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))
    assert refusal_of(folder) == said(folder, problem)


@pytest.mark.parametrize("length", [0, 1, 100, len(WRITTEN.encode()) - 3])
def test_one_that_is_cut_short_is_refused(folder: Path, length: int) -> None:
    (folder / "manifest.json").write_bytes(WRITTEN.encode()[:length])
    assert refusal_of(folder).startswith(said(folder, "the whole: Invalid JSON: EOF").partition(" EOF")[0])


def test_the_datasets_of_an_output_are_found(folder: Path) -> None:
    """Those one folder below it, and not what lies about there."""
    output = folder.parent
    (output / "french").mkdir()
    write_manifest(str(output / "french"), MANIFEST)
    (output / "begun" / ".broetchen").mkdir(parents=True)
    write_manifest(str(output / "begun" / ".broetchen"), MANIFEST)
    (output / "notes.json").write_text("{}")
    found = find_manifests(str(output))
    assert found == {f"{output}/french": MANIFEST, f"{output}/german": MANIFEST}
    assert list(found) == [f"{output}/french", f"{output}/german"]


def test_a_dataset_is_found_by_its_own_folder(folder: Path) -> None:
    (folder / "below").mkdir()
    write_manifest(str(folder / "below"), MANIFEST)
    assert find_manifests(str(folder)) == {str(folder): MANIFEST}


@pytest.mark.parametrize("name", ["empty", "none"])
def test_where_there_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(BroetchenError) as caught:
        find_manifests(str(tmp_path / name))
    assert str(caught.value) == (
        f"{tmp_path / name}: no finished dataset here (no manifest.json in it or one folder below); build it first"
    )


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        ("/out/german", "/out/tokenizer-89/tokenizer.json"),
        ("german", "tokenizer-89/tokenizer.json"),
        (".", "../tokenizer-89/tokenizer.json"),
        ("gs://bucket/out/german", "gs://bucket/out/tokenizer-89/tokenizer.json"),
    ],
)
def test_the_tokenizer_lies_beside_the_dataset(folder: str, path: str) -> None:
    """Wherever the output was moved to."""
    found = tokenizer_of(folder, MANIFEST)
    assert found == TokenizerSpec(path, "89", None, None, special_tokens="text")
    assert found.path == path  # Wherever it lies, it is the same tokenizer.


@pytest.mark.parametrize("special_tokens", ["token", "text"])
def test_special_tokens_are_what_they_were(special_tokens: str) -> None:
    tokenizer = MANIFEST.tokenizer.model_copy(update={"special_tokens": special_tokens})
    found = tokenizer_of("out/german", MANIFEST.model_copy(update={"tokenizer": tokenizer}))
    assert found.special_tokens == special_tokens
