"""Publishes files under their final names, and last a manifest that says exactly what they hold."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from tests.support.corpora import write_parquet
from tests.support.killed_builds import tree
from tests.support.reading import read_ids, read_pairs, read_texts
from tests.transforms.building.conftest import BOS, EOS, VOCABULARY, Build, MakeBuild, Stages
from transforms.arrayrecord.example import encode_ids
from transforms.arrayrecord.records import Format, holds_ids
from transforms.arrayrecord.writer import ShardWriter
from transforms.budget.token_budget import ShardCount, ShardSlice
from transforms.building.cut import PublishTask
from transforms.building.publish import (
    PublishedShard,
    clear_work,
    documents_within,
    finish_dataset,
    manifest_of,
    publish_shard,
)
from transforms.building.rows import ShardRows, tell_rows
from transforms.building.work_folder import ROW
from transforms.checksums import mark_of
from transforms.coders import from_json, to_json
from transforms.dataset.manifest import read_manifest
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.megatron.index import index_path

FORMATS: Sequence[Format] = get_args(Format)

# Tokens, documents and records of each file of a split.
HELD_IDS = {"train": [(8, 2, 3), (7, 1, 2), (3, 2, 2)], "eval": [(5, 1, 2), (2, 1, 1)]}
HELD_TEXT = {"train": [(6, 2, 2), (6, 1, 1), (2, 2, 2)], "eval": [(4, 1, 1), (2, 1, 1)]}
HELD: Mapping[Format, Mapping[str, list[tuple[int, int, int]]]] = {
    "tokens": HELD_IDS,
    "text": HELD_TEXT,
    "parquet": HELD_TEXT,
    # No document is cut but for a split.
    "megatron": {"train": [(8, 2, 2), (7, 1, 1), (3, 2, 2)], "eval": [(5, 1, 1), (2, 1, 1)]},
}
IDS = {
    "train": ["aaaa", [EOS], ["b", "b", EOS], "cccc", ["c", "c", EOS], ["d", EOS], "e"],
    "eval": ["eee", ["e", EOS], "ff"],
}
TEXTS = {"train": ["aaaa", "bb", "cccccc", "d", "e"], "eval": ["eeee", "ff"]}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def footer_sha256(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha256(content[-int.from_bytes(content[-8:-4], "little") - 8 :]).hexdigest()


def text_hash(*documents: str) -> str:
    hashes = [xxhash.xxh3_64_intdigest(document.encode()).to_bytes(8, "little") for document in documents]
    return xxhash.xxh3_64_hexdigest(b"".join(hashes))


def publish_task(build: Build, task: PublishTask) -> PublishedShard:
    """Publishes a file of a dataset that is not finished."""
    published = publish_shard(build.spec, task)
    assert published is not None
    return published


# Up to the first document of shard 3, of which two tokens are used: 8 + 7 + 8 + 2, or 6 + 6 + 6 + 2.
USED = ((("aaaa", "bb"), ("cccccc",)), (("d", "eeeee"), ("ffffff",)))
STARTS: Mapping[Format, Sequence[Sequence[int]]] = {
    "tokens": ((0, 8), (15, 23)),
    "text": ((0, 2), (3, 5)),
    "parquet": ((0, 2), (3, 5)),
    "megatron": ((0, 8), (15, 23)),
}


@pytest.mark.parametrize("written", FORMATS)
def test_the_manifest_says_exactly_what_there_is(make_build: MakeBuild, corpus: Path, written: Format) -> None:
    build = make_build(written)
    manifest = build.run()
    folder, extension = build.folder, build.spec.records.extension
    tokenizer = sha256(corpus / "tokenizer.json")

    def split(name: str, budget: int) -> dict[str, Any]:
        held = HELD[written][name]
        shards: list[dict[str, Any]] = []
        special = {} if written in ("tokens", "megatron") else {"documents_with_special_strings": 0}
        for index, (tokens, documents, records) in enumerate(held):
            path = folder / f"{name}-{index:05d}-of-{len(held):05d}.{extension}"
            numbers = {"tokens": tokens, "documents": documents, "records": records, "bytes": path.stat().st_size}
            shards.append({"file": path.name, **numbers, "sha256": sha256(path), **special})
            if written == "megatron":
                beside = path.with_suffix(".idx")
                mark = {"file": beside.name, "bytes": beside.stat().st_size, "sha256": sha256(beside)}
                shards[-1]["beside"] = [mark]
        parts = ("tokens", "documents", "records", "bytes")
        sums = {part: sum(shard[part] for shard in shards) for part in parts}
        return {"budget": budget, "missing": 0, **sums, "documents_put_back": 0, **special, "shards": shards}

    libraries = ["broetchen", "tokenizers", "pyarrow", *(["array_record"] if extension == "arecord" else [])]
    expected: dict[str, Any] = {
        "format": "broetchen-dataset",
        "format_version": 2,
        "mix": "small",
        "dataset": "a",
        "fingerprint": build.plan.fingerprint,
        "config": build.spec.config,
        "tokenizer": {
            "path": f"../tokenizer-{tokenizer[:12]}/tokenizer.json",
            "sha256": tokenizer,
            "vocab_size": VOCABULARY,
            "bos_id": None,
            "eos_id": EOS if holds_ids(written) else None,
            "special_tokens": "text",
        },
        "splits": {name: split(name, budget) for name, budget in build.spec.budgets.items()},
        # The rows of shard 3 behind that document, and those of text in reserve, are not in the dataset.
        "rows": 3 + 2 + 2 + 1,
        "skipped": {"empty": 1, "null": 1},
        "quarantine": [
            {
                "file": f"_quarantine/bad-rows-{ordinal:05d}.parquet",
                "rows": {reason: 1},
                "bytes": (folder / "_quarantine" / f"bad-rows-{ordinal:05d}.parquet").stat().st_size,
                "sha256": sha256(folder / "_quarantine" / f"bad-rows-{ordinal:05d}.parquet"),
            }
            for ordinal, reason in enumerate(("null", "empty"))
        ],
        "source": [
            {
                "path": f"a/{file}.parquet",
                "size": (corpus / "a" / f"{file}.parquet").stat().st_size,
                "footer_sha256": footer_sha256(corpus / "a" / f"{file}.parquet"),
                "checksum": None,
                "row_groups": [0, 1],
                "starts": list(STARTS[written][file]),
                "texts": [text_hash(*documents) for documents in USED[file]],
                **({"left_out": [{"null": 1}, {"empty": 1}]} if file == 0 else {}),
            }
            for file in range(2)
        ],
        "versions": {library: importlib.metadata.version(library) for library in libraries},
    }
    found = json.loads((folder / "manifest.json").read_bytes())
    assert found == expected
    assert list(found["skipped"]) == ["empty", "null"]
    assert manifest == read_manifest(str(folder))
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "manifest.json",
        *(entry["file"] for entry in expected["quarantine"]),
        *(shard["file"] for split in expected["splits"].values() for shard in split["shards"]),
        *(
            file["file"]
            for split in expected["splits"].values()
            for shard in split["shards"]
            for file in _beside(shard)
        ),
    }


def _beside(shard: dict[str, Any]) -> list[dict[str, Any]]:
    return shard.get("beside", [])


def documents(records: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Records put together to documents, each of which ends with EOS, but for the last."""
    found: list[list[Any]] = [[]]
    for record in records:
        found[-1] += record
        if record[-1] == EOS:
            found.append([])
    return [document for document in found if document]


def test_the_files_hold_the_first_tokens_of_the_documents(make_build: MakeBuild, tmp_path: Path) -> None:
    for written in FORMATS:
        make_build(written, output=str(tmp_path / written)).run()
    for split in ("train", "eval"):
        ids = [[ord(token) if isinstance(token, str) else token for token in record] for record in IDS[split]]
        assert read_ids(tmp_path / "tokens" / "a", split) == ids
        assert read_pairs(tmp_path / "megatron" / "a", split) == documents(ids)
        assert read_texts(tmp_path / "text" / "a", split) == TEXTS[split]
        paths = sorted((tmp_path / "parquet" / "a").glob(f"{split}-*.parquet"))
        assert [row for path in paths for row in pq.read_table(path)["text"].to_pylist()] == TEXTS[split]


@pytest.mark.parametrize("written", FORMATS)
def test_publishing_may_be_repeated(make_build: MakeBuild, written: Format) -> None:
    """As a runner does that has lost sight of a worker."""
    build = make_build(written)
    publish_plan, published, told = build.publish()
    before = tree(build.folder)
    held = [numbers for files in HELD[written].values() for numbers in files]
    assert published == [
        PublishedShard(
            split=task.split,
            index=task.index,
            file=task.file,
            tokens=tokens,
            documents=documents,
            records=records,
            mark=mark_of((build.folder / task.file).read_bytes()),
            id_index=mark_of((build.folder / index_path(task.file)).read_bytes()) if written == "megatron" else None,
            with_special=None if written in ("tokens", "megatron") else 0,
        )
        for task, (tokens, documents, records) in zip(publish_plan.tasks, held, strict=True)
    ]
    assert [(shard.split, shard.index) for shard in published] == [
        ("train", 0),
        ("train", 1),
        ("train", 2),
        ("eval", 0),
        ("eval", 1),
    ]
    assert [(rows.ordinal, rows.rows, rows.skipped) for rows in told] == [
        (0, 3, {"null": 1}),
        (1, 2, {"empty": 1}),
        (2, 2, {}),
        (3, 1, {}),
    ]
    assert build.place(publish_plan) == (published, told)
    assert tree(build.folder) == before


@pytest.mark.parametrize("same_size", [False, True])
def test_what_is_neither_here_nor_there_cannot_be_published(stages: Stages, same_size: bool) -> None:
    build = stages.restore("tokenized")
    publish_plan = build.publish_plan()
    task = publish_plan.tasks[0]
    Path(build.work.shard(0, task.count.attempt)).unlink()
    older = b"of an older build"
    (build.folder / task.file).write_bytes(older.ljust(task.count.file.bytes, b"!") if same_size else older)
    with pytest.raises(BroetchenError, match=r"shard-00000-\w+\.arecord: cannot be renamed to .*train-00000-of-00003"):
        publish_shard(build.spec, task)


def test_left_out_rows_that_are_neither_here_nor_there_are_told(stages: Stages) -> None:
    build = stages.restore("tokenized")
    publish_plan = build.publish_plan()
    task = publish_plan.rows[0]
    assert task.count.quarantine is not None
    Path(build.work.quarantine(0, task.count.attempt)).unlink()
    final = build.folder / "_quarantine" / "bad-rows-00000.parquet"
    final.parent.mkdir()
    final.write_bytes(bytes(task.count.quarantine.bytes))
    with pytest.raises(BroetchenError, match=r"bad-rows-00000-\w+\.parquet: cannot be renamed to .*/_quarantine/bad-"):
        tell_rows(build.spec, task)


@pytest.mark.parametrize("index", [0, 2], ids=["whole", "cut"])
def test_a_rename_whose_answer_is_lost_has_been_done(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    build = stages.restore("tokenized")
    task = build.publish_plan().tasks[index]
    replace = os.replace

    def lose(source: str, target: str) -> None:
        replace(source, target)
        if os.path.dirname(target) == build.spec.folder:
            raise OSError(errno.EIO, "no answer")

    monkeypatch.setattr(os, "replace", lose)
    assert publish_task(build, task).file == task.file
    assert sha256(build.folder / task.file) == stages.finished()[task.file]


@pytest.mark.parametrize("held", [0, 4, 6])
def test_a_cut_takes_what_it_says_or_nothing(make_build: MakeBuild, tmp_path: Path, held: int) -> None:
    """A file that was cut short reads as one with fewer records, or none, and says nothing of it."""
    build = make_build()
    folder, work, attempt = Path(build.plan.work_folder), build.work, "0123456789ab"
    with ShardWriter(work.shard(0, attempt)) as writer:
        writer.write_many(encode_ids(np.arange(held, dtype=np.uint32), np.arange(0, held + 1, 2)))
    written = writer.close()
    row_file = work.write_rows(0, attempt, np.array([(0, 6, 0)], ROW))
    count = ShardCount(
        0, tokens=6, documents=1, records=3, rows=1, attempt=attempt, file=written.mark, row_file=row_file
    )
    assert work.finish(count) == count
    task = PublishTask(
        dataset="a",
        work_folder=str(folder),
        extension="arecord",
        fingerprint=build.plan.fingerprint,
        is_text=False,
        split="train",
        index=0,
        of=1,
        count=count,
        piece=ShardSlice(0, skip=0, take=5),
    )
    if held == 6:
        assert publish_task(build, task).tokens == 5
        assert read_ids(build.folder, "train") == [[0, 1], [2, 3], [4]]
        return
    with pytest.raises(
        BroetchenError, match=rf"gives {held} of 5 tokens, so it was damaged .* delete the folder {folder}"
    ):
        publish_shard(build.spec, task)
    assert list(build.folder.rglob("*.arecord*")) == [folder / f"shard-00000-{attempt}.arecord"]
    assert not [path for path in folder.iterdir() if ".tmp-" in path.name or path.name.startswith("train")]


# --- Space -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def leave(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Says that so many bytes are left on every disk."""

    def say(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))

    return say


@pytest.mark.parametrize("index", [0, 2], ids=["whole", "cut"])
def test_a_cut_shard_needs_the_space_of_the_shard(stages: Stages, leave: Callable[[int], None], index: int) -> None:
    """A full disk shows itself before a file is begun; renaming takes no space."""
    build = stages.restore("tokenized")
    task = build.publish_plan().tasks[index]
    leave(task.count.file.bytes - 1)
    if task.whole:
        publish_shard(build.spec, task)
        return
    before = tree(build.folder)
    with pytest.raises(BroetchenError, match=rf"{build.plan.work_folder}/{task.file}-\w+: it takes about 128 KiB on"):
        publish_shard(build.spec, task)
    assert tree(build.folder) == before
    leave(task.count.file.bytes)
    publish_shard(build.spec, task)
    assert sha256(build.folder / task.file) == stages.finished()[task.file]


def test_of_a_shard_in_a_bucket_there_is_a_copy_as_well(
    stages: Stages, gcs_prefix: str, leave: Callable[[int], None]
) -> None:
    build = stages.restore("tokenized")
    local, work = Path(build.plan.work_folder), f"{gcs_prefix}/out/a/.broetchen/0123"
    for path in local.glob("shard-00002-*"):
        storage.upload(str(path), f"{work}/{path.name}")
    spec = dataclasses.replace(build.spec, output=f"{gcs_prefix}/out")
    task = dataclasses.replace(build.publish_plan().tasks[2], work_folder=work)
    leave(2 * task.count.file.bytes - 1)
    with pytest.raises(BroetchenError, match=r"it takes about 256 KiB on the disk of .* set TMPDIR to a folder"):
        publish_shard(spec, task)
    leave(2 * task.count.file.bytes)
    published = publish_task(build.changed(output=spec.output), task)
    assert published.mark.sha256 == stages.finished()[task.file]
    assert mark_of(storage.read_bytes(f"{spec.folder}/{task.file}")) == published.mark


# --- Documents of a piece --------------------------------------------------------------------------------------------


def documents_by_token(lengths: Sequence[int], skip: int, take: int) -> int:
    """Token by token."""
    owners = [document for document, length in enumerate(lengths) for _ in range(length)]
    return len(set(owners[skip : skip + take]))


@pytest.mark.parametrize(
    ("skip", "take", "documents"),
    [
        (0, 3, 1),  # ends where the first ends
        (0, 4, 2),
        (2, 1, 1),  # the last of the first
        (2, 2, 2),
        (3, 1, 1),  # begins where the first ends
        (3, 4, 1),
        (3, 5, 2),  # a document of one token, past one of none
        (6, 1, 1),
        (7, 1, 1),
        (0, 8, 3),
    ],
)
def test_documents_at_the_ends_of_a_piece(skip: int, take: int, documents: int) -> None:
    assert documents_within(np.array([0, 3, 4, 0, 1], np.uint32), ShardSlice(0, skip, take)) == documents


@given(st.lists(st.integers(0, 4), max_size=8).filter(any), st.data())
def test_documents_of_a_piece_are_those_with_a_token_in_it(lengths: list[int], data: st.DataObject) -> None:
    # A slice is not empty, nor is the shard that it is taken from.
    skip = data.draw(st.integers(0, sum(lengths) - 1))
    take = data.draw(st.integers(1, sum(lengths) - skip))
    found = documents_within(np.array(lengths, np.uint32), ShardSlice(0, skip, take))
    assert found == documents_by_token(lengths, skip, take)


def test_documents_of_a_shard_of_many_tokens() -> None:
    """More than 32 bits can count."""
    lengths = np.full(5, 2**32 - 1, np.uint32)
    assert documents_within(lengths, ShardSlice(0, skip=2 * (2**32 - 1), take=2**32)) == 2


# --- The manifest ----------------------------------------------------------------------------------------------------


def test_shards_may_have_been_published_in_any_order(stages: Stages) -> None:
    build = stages.restore("tokenized")
    publish_plan, published, told = build.publish()
    assert (len(published), len(told)) == (5, 4)
    build.finish(publish_plan, published[::-1], told[::-1])
    clear_work(build.spec)
    assert tree(build.folder) == stages.finished()


def test_the_rows_of_a_shard_that_was_read_in_part(make_build: MakeBuild, tmp_path: Path) -> None:
    """The manifest names the row groups that were read, in their order, not that of a shuffled dataset."""
    write_parquet(tmp_path / "source" / "a" / "0.parquet", [["aaaa"], ["bbbb"], ["cccc"]])
    write_parquet(tmp_path / "source" / "a" / "1.parquet", [["dddd"], ["eeee"], ["ffff"]])
    build = make_build(
        source=tmp_path / "source",
        dataset={"tokens": 24, "eval_tokens": 1, "order": "shuffled"},
        shards={"target_size": 10_000},
        seed=2,
    )
    (shard,) = build.plan.shards
    assert shard.row_groups == ((1, 2), (0, 0), (1, 0), (1, 1), (0, 1), (0, 2))
    (count,) = build.tokenize()
    assert count.rows == 5
    manifest = build.run()
    used = [(file.path, file.row_groups, file.starts) for file in manifest.source]
    assert used == [("a/0.parquet", [0, 1], [5, 20]), ("a/1.parquet", [0, 1, 2], [10, 15, 0])]
    assert [file.texts for file in manifest.source] == [
        [text_hash("aaaa"), text_hash("bbbb")],
        [text_hash("dddd"), text_hash("eeee"), text_hash("ffff")],
    ]


def test_a_store_tells_the_checksums_of_its_files(stages: Stages) -> None:
    build = stages.restore("tokenized")
    publish_plan, published, told = build.publish()
    first, second = build.plan.files
    plan = dataclasses.replace(build.plan, files=(first, dataclasses.replace(second, checksum="crc32c")))
    none_kept = [dataclasses.replace(rows, quarantine=None) for rows in told]
    manifest = manifest_of(build.spec, plan, publish_plan.sums, published, none_kept)
    assert [file.checksum for file in manifest.source] == [None, "crc32c"]
    assert manifest.quarantine == []


def test_what_was_published_survives_the_wire(stages: Stages) -> None:
    _, published, told = stages.restore("tokenized").publish()
    assert [rows.quarantine is not None for rows in told] == [True, True, False, False]
    assert [from_json(ShardRows, to_json(rows)) for rows in told] == told
    assert [from_json(PublishedShard, to_json(shard)) for shard in published] == published


def test_a_short_source_that_is_kept(make_build: MakeBuild) -> None:
    manifest = make_build(dataset={"tokens": 30, "eval_tokens": 20}, on_shortfall="keep").run()
    found = {name: (split.budget, split.tokens, split.missing) for name, split in manifest.splits.items()}
    assert found == {"train": (30, 30, 0), "eval": (20, 8, 12)}


def test_the_ids_that_were_added(make_build: MakeBuild) -> None:
    build = make_build(records={"max_tokens": 4, "add_bos": True, "add_eos": False})
    manifest = build.run()
    assert (manifest.tokenizer.bos_id, manifest.tokenizer.eos_id) == (BOS, None)
    assert read_ids(build.folder, "train")[:2] == [[BOS, *b"aaa"], [*b"a"]]


def test_documents_that_were_put_back(make_build: MakeBuild, tmp_path: Path) -> None:
    """No cut of the first gives four tokens: it goes to the next split, and the second is cut."""
    write_parquet(tmp_path / "source" / "a" / "0.parquet", [["€€", "x"], ["abcdef"]])
    build = make_build("text", tmp_path / "source", dataset={"tokens": 4, "eval_tokens": 8})
    manifest = build.run()
    assert {name: split.documents_put_back for name, split in manifest.splits.items()} == {"train": 1, "eval": 0}
    assert read_texts(build.folder, "train") == ["x", "abc"]
    assert read_texts(build.folder, "eval") == ["€€", "de"]


# --- The end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "index", "more"), [("train", 0, -1), ("train", 1, 1), ("eval", 4, -1)])
@pytest.mark.parametrize("missing", [0, 3])
def test_shards_that_do_not_add_up_are_no_dataset(
    stages: Stages, split: str, index: int, more: int, missing: int
) -> None:
    build = stages.restore("tokenized")
    publish_plan, published, told = build.publish()
    sums = dataclasses.replace(publish_plan.sums, missing={**publish_plan.sums.missing, split: missing})
    budgets = {name: budget + missing * (name == split) for name, budget in build.spec.budgets.items()}
    spec = dataclasses.replace(build.spec, budgets=budgets)
    published[index] = dataclasses.replace(published[index], tokens=published[index].tokens + more)
    older = build.folder / "train-00000-of-00009.arecord"
    older.write_bytes(b"of an older build")
    with pytest.raises(BroetchenError) as caught:
        finish_dataset(spec, build.plan, sums, published, told)
    whole = build.spec.budgets[split]
    assert str(caught.value) == (
        f"dataset a: {split} holds {whole + more} tokens, not {whole}; nothing was finished. "
        "This is a defect of Brötchen: please report it with the config"
    )
    assert not (build.folder / "manifest.json").exists()
    assert older.exists()
    assert [build.work.finished(count.ordinal) for count in stages.counts] == list(stages.counts)


@pytest.mark.parametrize(
    ("harm", "state"),
    [(Path.unlink, "gone"), (lambda path: path.write_bytes(path.read_bytes()[:-1]), "another than was written")],
)
def test_a_manifest_is_not_written_over_left_out_rows_that_are_others(
    stages: Stages, harm: Callable[[Path], object], state: str
) -> None:
    build = stages.restore("tokenized")
    publish_plan, published, told = build.publish()
    harmed = build.folder / "_quarantine" / "bad-rows-00001.parquet"
    harm(harmed)
    with pytest.raises(BroetchenError) as caught:
        build.finish(publish_plan, published, told)
    assert str(caught.value) == (
        f"{harmed}: is {state}, so that no manifest was written; make sure that only one build writes there, and run "
        "it again"
    )
    assert read_manifest(build.spec.folder) is None
    build.run()
    assert tree(build.folder) == stages.finished()


def test_what_other_builds_left_is_cleared_away_and_nothing_else(stages: Stages) -> None:
    build = stages.restore("published")
    left = [
        "train-00000-of-00009.arecord",
        "eval-00002-of-00003.arecord",
        ".train-00000-of-00003.arecord.tmp-0123",
        ".manifest.json.tmp-0123",
        ".broetchen/0123456789abcdef/shard-00000.arecord",
    ]
    kept = ["README.md", "notes/train-00000-of-00009.arecord", "train-00000-of-00003.parquet"]
    for name in [*left, *kept]:
        (build.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (build.folder / name).write_bytes(name.encode())
    build.run()
    expected = {name: hashlib.sha256(name.encode()).hexdigest() for name in kept}
    assert tree(build.folder) == stages.finished() | expected


def test_a_manifest_that_cannot_be_written_leaves_the_work(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    build = stages.restore("tokenized")
    replace = os.replace

    def refuse(source: str, target: str) -> None:
        if target.endswith("manifest.json"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(BroetchenError, match=r"manifest\.json"):
        build.run()
    assert read_manifest(build.spec.folder) is None
    assert [build.work.finished(count.ordinal) for count in stages.counts] == list(stages.counts)
    monkeypatch.undo()
    build.run()
    assert tree(build.folder) == stages.finished()


class Killed(BaseException):
    """The end of a process: from then on, nothing is done any more."""


def run_killed(build: Build, after: int) -> bool:
    """Builds up to the renaming or deleting before which so many are done; whether it came to that."""
    done = 0

    def kill_before(call: Callable[..., object]) -> Callable[..., object]:
        def until_killed(*arguments: Any, **options: Any) -> object:
            nonlocal done
            if done == after:
                raise Killed
            done += not options  # All that `rmtree` deletes counts as one.
            return call(*arguments, **options)

        return until_killed

    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((os, "replace"), (os, "unlink"), (shutil, "rmtree")):
            patch.setattr(module, name, kill_before(getattr(module, name)))
        try:
            build.run()
        except Killed:
            return True
    return False


def test_killed_before_any_renaming_it_is_finished_by_the_next(stages: Stages) -> None:
    """A manifest is there only where the whole dataset is; where none is, no work has to be done again."""
    after = 0
    while run_killed(build := stages.restore("tokenized"), after):
        if (build.folder / "manifest.json").exists():
            assert stages.finished().items() <= tree(build.folder).items()
        else:
            assert [build.work.finished(count.ordinal) for count in stages.counts] == list(stages.counts)
        build.run()
        assert tree(build.folder) == stages.finished(), after
        after += 1
    assert after > 12


def test_pairs_killed_before_any_renaming_are_finished_by_the_next(make_build: MakeBuild, tmp_path: Path) -> None:
    """There is a manifest only where both files of each shard are, and the second of none is left over."""
    expected = make_build("megatron", output=str(tmp_path / "whole"))
    expected.run()
    after = 0
    while run_killed(build := make_build("megatron", output=str(tmp_path / str(after))), after):
        if (build.folder / "manifest.json").exists():
            assert tree(expected.folder).items() <= tree(build.folder).items()
        build.run()
        assert tree(build.folder) == tree(expected.folder), after
        after += 1
    assert after > 20


def test_indices_that_other_builds_left_are_cleared_away(make_build: MakeBuild) -> None:
    build = make_build("megatron")
    build.publish()
    left = ["train-00000-of-00009.idx", "eval-00002-of-00003.bin", ".train-00000-of-00003.idx.tmp-0123"]
    for name in left:
        (build.folder / name).write_bytes(name.encode())
    manifest = build.run()
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    files = {name for shard in shards for name in (shard.file, *(file.file for file in shard.beside))}
    assert len(files) == 2 * len(shards)
    assert {path.name for path in build.folder.iterdir() if path.is_file()} == files | {"manifest.json"}


def test_a_finished_dataset_without_one_of_its_indices_is_not_finished(make_build: MakeBuild) -> None:
    build = make_build("megatron")
    build.run()
    (build.folder / "train-00001-of-00003.idx").unlink()
    with pytest.raises(BroetchenError, match="files that its manifest names are gone or cut short"):
        build.run()


def test_the_tokenizer_is_found_from_a_relative_output(
    make_build: MakeBuild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = make_build(output="out").run()
    assert manifest.tokenizer.path == f"../tokenizer-{manifest.tokenizer.sha256[:12]}/tokenizer.json"


def test_a_shard_that_was_put_back_may_be_published_already(make_build: MakeBuild, tmp_path: Path) -> None:
    """A build that was killed then looks for a cut in it again, and finds it under its final name."""
    write_parquet(tmp_path / "source" / "a" / "0.parquet", [["€€"], ["abcdef"]])
    build = make_build("text", tmp_path / "source", dataset={"tokens": 4, "eval_tokens": 8})
    publish_plan, _, _ = build.publish()
    assert [task.file for task in publish_plan.tasks if task.whole] == ["eval-00000-of-00002.arecord"]
    build.run()
    assert read_texts(build.folder, "train") == ["abcd"]
    assert read_texts(build.folder, "eval") == ["€€", "ef"]
