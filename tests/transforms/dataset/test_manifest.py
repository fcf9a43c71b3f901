"""The manifest as others find it: its bytes, the facts read back, and the errors where it is none."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest

from transforms.dataset.manifest import (
    FileEntry,
    Manifest,
    QuarantineEntry,
    ShardEntry,
    SourceEntry,
    SplitEntry,
    TokenizerEntry,
    TraceEntry,
    find_manifests,
    manifest_path,
    read_manifest,
    tokenizer_of,
    write_manifest,
)
from transforms.errors import BroetchenError
from transforms.tokenizer.spec import TokenizerSpec

FINGERPRINT, TOKENIZER, SHARD, FOOTER = ("01" * 32, "89" * 32, "ab" * 32, "cd" * 32)
CONFIG = {
    "records": {"format": "tokens", "max_tokens": 8},
    "dataset": {"tokens": 5, "on_shortfall": "fail", "text_column": "text"},
}
MANIFEST = Manifest(
    format_version=1,
    mix="mix",
    dataset="german",
    fingerprint=FINGERPRINT,
    config=CONFIG,
    tokenizer=TokenizerEntry(
        path=f"../tokenizer-{TOKENIZER[:12]}/tokenizer.json",
        sha256=TOKENIZER,
        vocab_size=9,
        bos_id=None,
        eos_id=0,
        special_tokens="text",
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
                ShardEntry(
                    file="train-00000-of-00001.arecord", tokens=4, documents=2, records=3, bytes=20, sha256=SHARD
                )
            ],
        )
    },
    skipped={"null": 1},
    source=[SourceEntry(path="ü.parquet", size=7, footer_sha256=FOOTER, checksum=None, row_groups=[0, 2])],
    versions={"broetchen": "0.1"},
)
WRITTEN = """\
{
 "format": "broetchen-dataset",
 "format_version": 1,
 "mix": "mix",
 "dataset": "german",
 "fingerprint": "0101010101010101010101010101010101010101010101010101010101010101",
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
  "path": "../tokenizer-898989898989/tokenizer.json",
  "sha256": "8989898989898989898989898989898989898989898989898989898989898989",
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
     "sha256": "abababababababababababababababababababababababababababababababab"
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
   "footer_sha256": "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
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
    entry = QuarantineEntry(file="_quarantine/bad-rows-00000.parquet", rows={"null": 1}, bytes=3, sha256=SHARD)
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
        (lambda content: content["config"].pop("records"), "config: Value error, it lacks records"),
        (lambda content: content["config"]["records"].pop("format"), "config: Value error, it lacks records.format"),
        (
            lambda content: content["config"]["records"].pop("max_tokens"),
            "config: Value error, it lacks records.max_tokens",
        ),
        (lambda content: content["config"].pop("dataset"), "config: Value error, it lacks dataset"),
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
    """The message names its first fault."""
    content = json.loads(WRITTEN)
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))
    assert refusal_of(folder) == said(folder, problem)


@pytest.mark.parametrize("length", [0, 1, 100, len(WRITTEN.encode()) - 3])
def test_one_that_is_cut_short_is_refused(folder: Path, length: int) -> None:
    (folder / "manifest.json").write_bytes(WRITTEN.encode()[:length])
    assert refusal_of(folder).startswith(said(folder, "the whole: Invalid JSON: EOF").partition(" EOF")[0])


def test_the_datasets_of_an_output_are_found(folder: Path) -> None:
    """They lie one folder below it; other files there are passed over."""
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
        ("/out/german", "/out/tokenizer-898989898989/tokenizer.json"),
        ("german", "tokenizer-898989898989/tokenizer.json"),
        (".", "../tokenizer-898989898989/tokenizer.json"),
        ("gs://bucket/out/german", "gs://bucket/out/tokenizer-898989898989/tokenizer.json"),
    ],
)
def test_the_tokenizer_lies_beside_the_dataset(folder: str, path: str) -> None:
    """Wherever the output was moved to."""
    found = tokenizer_of(folder, MANIFEST)
    assert found == TokenizerSpec(path, TOKENIZER, None, None, special_tokens="text")
    assert found.path == path  # Wherever it lies, it is the same tokenizer.


@pytest.mark.parametrize("special_tokens", ["token", "text"])
def test_special_tokens_are_what_they_were(special_tokens: str) -> None:
    tokenizer = MANIFEST.tokenizer.model_copy(update={"special_tokens": special_tokens})
    found = tokenizer_of("out/german", MANIFEST.model_copy(update={"tokenizer": tokenizer}))
    assert found.special_tokens == special_tokens


SECOND = MANIFEST.model_copy(
    update={
        "format_version": 2,
        "rows": 7,
        "filtered": 1,
        "splits": {
            "train": MANIFEST.splits["train"].model_copy(
                update={
                    "passes": 1.5,
                    "shards": [
                        MANIFEST.splits["train"]
                        .shards[0]
                        .model_copy(
                            update={
                                "beside": [FileEntry(file="train-00000-of-00001.arecord.idx", bytes=3, sha256=SHARD)],
                                "trace": TraceEntry(file="_trace/train-00000-of-00001.parquet", bytes=4, sha256=SHARD),
                            }
                        )
                    ],
                }
            )
        },
        "source": [
            MANIFEST.source[0].model_copy(
                update={"starts": [0, 3], "texts": ["0" * 16, "f" * 16], "left_out": [{}, {"null": 1}]}
            )
        ],
    }
)


def test_the_second_version_is_read_back(folder: Path) -> None:
    write_manifest(str(folder), SECOND)
    assert read_manifest(str(folder)) == SECOND
    content = json.loads((folder / "manifest.json").read_bytes())
    assert list(content)[7:12] == ["splits", "rows", "skipped", "filtered", "source"]
    assert content["source"][0]["texts"] == ["0" * 16, "f" * 16]


def test_keys_of_the_second_version_are_left_out_where_they_say_nothing(folder: Path) -> None:
    write_manifest(str(folder), MANIFEST.model_copy(update={"format_version": 2}))
    assert (folder / "manifest.json").read_text("utf-8") == WRITTEN.replace('version": 1', 'version": 2')


def test_keys_of_the_second_version_are_none_of_the_first(folder: Path) -> None:
    second = json.loads(SECOND.model_dump_json())
    first = json.loads(WRITTEN)
    split, shard, source = second["splits"]["train"], second["splits"]["train"]["shards"][0], second["source"][0]
    changes: list[tuple[str, Callable[[Any], object]]] = [
        ("rows", lambda content: content.update(rows=second["rows"])),
        ("filtered", lambda content: content.update(filtered=0)),
        ("passes", lambda content: content["splits"]["train"].update(passes=split["passes"])),
        ("beside", lambda content: content["splits"]["train"]["shards"][0].update(beside=shard["beside"])),
        ("trace", lambda content: content["splits"]["train"]["shards"][0].update(trace=shard["trace"])),
        ("starts", lambda content: content["source"][0].update(starts=source["starts"])),
        ("texts", lambda content: content["source"][0].update(texts=source["texts"])),
        ("left_out", lambda content: content["source"][0].update(left_out=source["left_out"])),
    ]
    for name, change in changes:
        content = json.loads(json.dumps(first))
        change(content)
        (folder / "manifest.json").write_text(json.dumps(content))
        assert refusal_of(folder) == said(folder, f"the whole: Value error, {name} is no key of format version 1")


@pytest.mark.parametrize("version", [3, 10**9])
def test_a_newer_version_is_named(folder: Path, version: int) -> None:
    """The rest of such a manifest does not matter."""
    (folder / "manifest.json").write_text(
        json.dumps(json.loads(WRITTEN) | {"format_version": version, "more": {"a": 1}, "splits": []})
    )
    assert refusal_of(folder) == (
        f"{folder}/manifest.json: written by a newer version of Brötchen (format version {version}); update it"
    )


def put(*keys: str | int, value: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


SPLIT = ("splits", "train")
ENTRY = (*SPLIT, "shards", 0)
NO_COUNTS: tuple[Any, ...] = (-1, 2**63, 2**70, 1.5, "4", True, None, [])
LIES: list[tuple[Callable[[Any], None], str]] = [
    *((put(*ENTRY, "file", value=name), "splits.train.shards.0.file: String should match pattern") for name in (
        "../german/train-00000-of-00001.arecord", "/etc/passwd", "..", "a/train-00000-of-00001.arecord", "x",
        "train-00000-of-00001.arecord\n", "train-\u0660\u0660\u0660\u0660\u0660-of-00001.arecord",
        "[red]-00000-of-00001.arecord", ".train-00000-of-00001.arecord", "train-00000-of-00001.arecord.idx",
    )),
    (put(*ENTRY, "file", value=5), "splits.train.shards.0.file: Input should be a valid string"),
    *((put(*ENTRY, "tokens", value=number), "splits.train.shards.0.tokens: Input should be")
      for number in NO_COUNTS),
    (put(*SPLIT, "shards", value=[MANIFEST.splits["train"].shards[0].model_dump() | {"tokens": 2**62}] * 2),
     "the whole: Value error, its tokens add up to more than 64 bits hold"),
    (put(*ENTRY, "sha256", value="AB" * 32), "splits.train.shards.0.sha256: String should match pattern"),
    (put("splits", "../x", value={}), "splits.../x.[key]: String should match pattern"),
    (put("dataset", value="a\x1b[2J"), "dataset: String should match pattern"),
    (put("mix", value="[red]x[/red]"), "mix: String should match pattern"),
    (put("skipped", "a\nb", value=1), "skipped.a b.[key]: String should match pattern"),
    (put("a\x1b[2J", value=1), "a?[2J: Extra inputs are not permitted"),
    (put("x" * 5000, value=1), "xxxxx"),
    (put("quarantine", value=[{"file": "_quarantine/../x", "rows": {}, "bytes": 1, "sha256": SHARD}]),
     "quarantine.0.file: String should match pattern"),
    (put("splits", "train", "shards", 0, "trace", value={"file": "_trace/../x.parquet", "bytes": 1, "sha256": SHARD}),
     "splits.train.shards.0.trace.file: String should match pattern"),
    (put("tokenizer", "vocab_size", value=2**32), "tokenizer.vocab_size: Input should be less than"),
    (put("tokenizer", "special_tokens", value="both"), "tokenizer.special_tokens: Input should be 'text' or 'token'"),
    (put("config", "records", "format", value="csv"), "config: Value error, records.format: Input should be"),
    (put("config", "records", "max_tokens", value="8"), "config: Value error, records.max_tokens: Input should be"),
    (put("config", "records", "max_tokens", value=0), "config: Value error, records.max_tokens: Input should be"),
    (put("config", "records", value=[]), "config: Value error, records: Input should be"),
    (put("config", "dataset", "text_column", value=None), "config: Value error, dataset.text_column: Input should be"),
    (put("config", "dataset", "eval_tokens", value=-1), "config: Value error, dataset.eval_tokens: Input should be"),
    (put("config", "dataset", "eval_position", value=0), "config: Value error, dataset.eval_position: Input should"),
    (put("source", 0, "left_out", value=[{"null": -1}] * 2), "source.0.left_out.0.null: Input should be greater than"),
    (put("source", 0, "left_out", value=[{}] * 3), "source.0: Value error, 3 left_out are not one for each of 2 row"),
    (put("config", "dataset", "on_bad_rows", value="ask"), "config: Value error, dataset.on_bad_rows: Input should"),
    (put("config", "more", value=2**63), "config: Value error, it has a whole number of more than 64 bits"),
    (put("config", "more", value=[{"a": 1e999}]), "config: Value error, it has a number that is not finite"),
    (put("format_version", value=0), "format_version: Input should be greater than"),
    (put("format_version", value="2"), "format_version: Input should be a valid integer"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "problem"), LIES, ids=[problem for _, problem in LIES])
def test_what_cannot_be_is_refused_in_a_line(folder: Path, change: Callable[[Any], None], problem: str) -> None:
    content = json.loads(WRITTEN)
    change(content)
    # Python writes infinity as no JSON.
    (folder / "manifest.json").write_text(json.dumps(content).replace("Infinity", "1e999"))
    refusal = refusal_of(folder)
    assert problem in refusal
    assert refusal.isprintable()
    assert len(refusal) < 500


@pytest.mark.parametrize(
    "spoiled",
    [
        WRITTEN.encode("utf-16"),
        WRITTEN.encode("latin-1"),
        b"[" * 100_000,
        WRITTEN.replace('"mix": "mix"', '"mix": "mix", "mix": "mix"').encode(),
        WRITTEN.replace('"budget": 5', '"budget": NaN').encode(),
        WRITTEN.replace('"budget": 5', f'"budget": {"9" * 5000}').encode(),
        WRITTEN.replace('"text"', r'"\ud800"').encode(),
        WRITTEN.replace('"text_column": "text"', '"more": ' + "[" * 900 + "]" * 900 + ', "text_column": "a"').encode(),
    ],
)
def test_what_is_no_json_is_refused_in_a_line(folder: Path, spoiled: bytes) -> None:
    (folder / "manifest.json").write_bytes(spoiled)
    refusal = refusal_of(folder)
    assert refusal.startswith(f"{folder}/manifest.json: not a manifest that this version reads (")
    assert refusal.isprintable()
    assert len(refusal) < 500


def test_many_entries_that_are_wrong_take_no_longer_than_one(folder: Path) -> None:
    content = json.loads(WRITTEN)
    many: list[Any] = [{}] * 100_000
    content["splits"]["train"]["shards"] = content["source"][0]["row_groups"] = content["quarantine"] = many
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(BroetchenError) as caught:
        read_manifest(str(folder))
    assert isinstance(caught.value.__cause__, pydantic.ValidationError)
    assert caught.value.__cause__.error_count() < 20


@pytest.mark.parametrize("other", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_only_a_regular_file_is_one(folder: Path, other: Callable[[Path], None]) -> None:
    (folder / "manifest.json").unlink()
    other(folder / "manifest.json")
    assert refusal_of(folder).startswith(f"{folder}/manifest.json: not a regular file but ")


def test_one_that_is_too_large_is_not_read(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate((256 << 20) + 1)
    assert "268,435,457 bytes, more than the 268,435,456 that are read" in refusal_of(folder)


def test_a_folder_whose_name_steers_a_terminal(folder: Path) -> None:
    folder.rename(folder.with_name("a\x1b[2J"))
    with pytest.raises(BroetchenError) as caught:
        find_manifests(str(folder.parent))
    assert str(caught.value) == (
        f"{folder.parent}: has a folder with control characters in its name, 'a\\x1b[2J'; rename it"
    )


@pytest.mark.parametrize(
    "path", ["/etc/tokenizer.json", "../../x/tokenizer.json", "../a/../../x/tokenizer.json", "tokenizer.json", "../a b"]
)
def test_a_tokenizer_elsewhere_is_looked_for_where_a_build_puts_it(path: str) -> None:
    tokenizer = MANIFEST.tokenizer.model_copy(update={"path": path})
    found = tokenizer_of("/out/german", MANIFEST.model_copy(update={"tokenizer": tokenizer}))
    assert found.path == "/out/tokenizer-898989898989/tokenizer.json"


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_is_no_regular_file_is_not_opened(folder: Path, name: str) -> None:
    (place := folder.parent / "tokenizer-898989898989").mkdir()
    os.mkfifo(place / name)
    with pytest.raises(BroetchenError, match=f"{place}/{name}: not a regular file but a FIFO"):
        tokenizer_of(str(folder), MANIFEST)


def test_a_tokenizer_behind_a_link_is_not_opened(folder: Path) -> None:
    (folder.parent.parent / "elsewhere").mkdir()
    (folder.parent.parent / "elsewhere" / "tokenizer.json").write_text("{}")
    (folder.parent / "tokenizer-898989898989").symlink_to("../elsewhere")
    with pytest.raises(BroetchenError, match=r"leads out of .*/out, by a link to another folder"):
        tokenizer_of(str(folder), MANIFEST)
