"""The findings of `verify` on built datasets that somebody has changed, so that their checksums and sums fit."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from beam_pipelines.jobs.verify import verify
from tests.support.corpora import BOS, EOS, write_parquet
from tests.support.reading import read_texts
from tests.transforms.dataset.built_outputs import (
    GROUPS,
    build_output,
    change_manifest,
    findings_of,
    make_older,
    manifest_json,
    reseal,
    told,
)
from transforms.arrayrecord.example import decode_ids, encode_ids
from transforms.arrayrecord.reader import RecordReader
from transforms.arrayrecord.writer import ShardWriter
from transforms.dataset.manifest import find_manifests
from transforms.dataset.verify import known_problems
from transforms.errors import BroetchenError

WORK = "unfinished work (1 files) beside a finished dataset; it goes with the next build here, or delete it"
FRAMES = {
    "eos": {"add_eos": True},
    "bos": {"add_bos": True},
    "both": {"add_bos": True, "add_eos": True},
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Outputs by the ids around a document, and by format."""
    made = {}
    for name, frame in FRAMES.items():
        made[name] = build_output(tmp_path_factory.mktemp(name), records={"max_tokens": 16, **frame})
    for name in ("text", "parquet"):
        made[name] = build_output(tmp_path_factory.mktemp(name), records={"format": name})
    made["bare"] = build_output(tmp_path_factory.mktemp("bare"), records={"max_tokens": 16})
    return made


@pytest.fixture
def copied(outputs: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(outputs[name], tmp_path / "out"))

    return copy


def rewrite(path: Path, records: list[list[int]]) -> None:
    with ShardWriter(str(path)) as writer:
        bounds = np.cumsum([0, *map(len, records)])
        writer.write_many(encode_ids(np.array([*itertools.chain(*records)], np.uint32), bounds))


def records_of(path: Path) -> list[list[int]]:
    with RecordReader(str(path)) as reader:
        return [decode_ids(record).tolist() for record in reader]


@pytest.mark.parametrize("name", [*FRAMES, "text", "parquet", "bare"])
def test_nothing_is_wrong_with_what_a_build_wrote(outputs: dict[str, Path], name: str) -> None:
    found = findings_of(outputs[name])
    unchecked = {"bare": ["neither BOS nor EOS is added, which would tell where documents end"]}.get(name, [])
    assert [one.text.rpartition(": ")[2] for one in found] == unchecked
    # There are shards that begin and end within a document.
    shards = [shard for split in manifest_json(outputs[name])["splits"].values() for shard in split["shards"]]
    assert len(shards) > 3


@pytest.mark.parametrize("name", FRAMES)
def test_documents_are_counted_again(copied: Callable[[str], Path], name: str) -> None:
    """One is said of a shard of train that is another's of eval, so that sums fit but those of the splits."""
    output = copied(name)

    def change(manifest: Any) -> None:
        split = manifest["splits"]["train"]
        split["shards"][0]["documents"] += 1
        split["shards"][1]["documents"] -= 1

    said = [shard["documents"] for shard in manifest_json(output)["splits"]["train"]["shards"][:2]]
    change_manifest(output, change)
    files = [shard["file"] for shard in manifest_json(output)["splits"]["train"]["shards"][:2]]
    assert told(output, "problem") == [
        f"a/{files[0]}: {said[0]} documents, not {said[0] + 1}",
        f"a/{files[1]}: {said[1]} documents, not {said[1] - 1}",
    ]


@pytest.mark.parametrize("name", FRAMES)
def test_an_end_of_document_that_was_forged_is_found(copied: Callable[[str], Path], name: str) -> None:
    """An id in a record becomes a BOS or an EOS; checksums are sealed again, and no text encodes to these."""
    output = copied(name)
    path = output / "a" / manifest_json(output)["splits"]["train"]["shards"][0]["file"]
    records = records_of(path)
    at = next(number for number, record in enumerate(records) if len(record) > 4)
    token = BOS if name == "bos" else EOS
    records[at][2] = token
    rewrite(path, records)
    reseal(output)
    kind = "BOS" if name == "bos" else "EOS"
    assert told(output, "problem")[0] == (
        f"a/{path.name}: record {at}: {kind} ({token}) within a document, where no build puts it"
    )


def test_documents_are_not_counted_where_a_text_may_hold_an_eos(tmp_path: Path) -> None:
    special = {"path": str(Path("samples/tokenizer.json").resolve()), "eos_token": "<|eos|>", "special_tokens": "token"}
    rows = [["eins <|eos|> zwei<|eos|>" if row % 3 else "drei vier fünf" for row in range(20)] for _ in range(8)]
    output = build_output(tmp_path, {"0": rows}, tokenizer=special, tokens=500)
    assert told(output, "problem") == []
    assert told(output, "unchecked") == [
        "a: its documents cannot be counted again: a text may hold BOS or EOS itself, with special_tokens: token"
    ]


def test_documents_are_not_counted_where_eos_is_a_word(tmp_path: Path) -> None:
    """Any token of the vocabulary can be named as EOS, one that texts encode to among them."""
    word = {"path": str(Path("samples/tokenizer.json").resolve()), "eos_token": "."}
    output = build_output(tmp_path, tokenizer=word)
    assert told(output, "problem") == []
    (line,) = told(output, "unchecked")
    assert line.endswith("a text can encode to the id of BOS or EOS with this tokenizer")


@pytest.mark.parametrize("name", ["text", "parquet"])
def test_documents_of_text_are_its_records(copied: Callable[[str], Path], name: str) -> None:
    output = copied(name)

    def change(manifest: Any) -> None:
        manifest["splits"]["train"]["shards"][1]["documents"] -= 1
        manifest["splits"]["train"]["documents"] -= 1

    change_manifest(output, change)
    shard = manifest_json(output)["splits"]["train"]["shards"][1]
    counted = f"{shard['documents']} documents in {shard['records']} records"
    line = f"a: {shard['file']}: {counted}; in format {name} each is one"
    assert line in told(output, "problem")


def test_the_same_shard_twice(copied: Callable[[str], Path]) -> None:
    """A shard that was put in the place of another, with all sums made to fit."""
    output = copied("eos")
    train = manifest_json(output)["splits"]["train"]["shards"]
    shutil.copy(output / "a" / train[0]["file"], output / "a" / train[1]["file"])

    def change(manifest: Any) -> None:
        split = manifest["splits"]["train"]
        for part in ("tokens", "documents", "records"):
            split["shards"][1][part] = split["shards"][0][part]
            split[part] = sum(shard[part] for shard in split["shards"])
        split["budget"] = manifest["config"]["dataset"]["tokens"] = split["tokens"]

    change_manifest(output, change)
    reseal(output)
    found = findings_of(output)
    assert any("are one shard twice" in one.text for one in found)


def test_the_same_shard_twice_where_the_places_hold_other_texts(copied: Callable[[str], Path]) -> None:
    """The hashes of the texts read for them tell that the corpus has no doublets."""
    output = copied("text")
    train = manifest_json(output)["splits"]["train"]["shards"]
    one, other = next(
        (one, other) for one, other in itertools.combinations(train[:-1], 2) if one["records"] == other["records"]
    )
    shutil.copy(output / "a" / one["file"], output / "a" / other["file"])

    def change(manifest: Any) -> None:
        split = manifest["splits"]["train"]
        for shard in split["shards"]:
            if shard["file"] == other["file"]:
                shard.update(tokens=one["tokens"], documents=one["documents"])
        split["tokens"] = split["budget"] = sum(shard["tokens"] for shard in split["shards"])
        manifest["config"]["dataset"]["tokens"] = split["tokens"]

    change_manifest(output, change)
    reseal(output)
    assert told(output, "problem") == [
        f"a: {one['file']} and {other['file']} are one shard twice, and the row groups of their places are others"
    ]


def test_a_corpus_with_doublets_is_sound_and_told(tmp_path: Path) -> None:
    """The same file under two names, so that shards are equal too."""
    output = build_output(tmp_path, {"0": GROUPS[:4], "1": GROUPS[:4]}, tokens=10**6, on_shortfall="keep")
    assert told(output, "problem") == []
    warnings = told(output, "warning")
    assert any("0.parquet and a/1.parquet are one content under two names, with " in line for line in warnings)
    assert any("are one shard twice (" in line for line in warnings)


def test_one_footer_and_other_texts(copied: Callable[[str], Path]) -> None:
    output = copied("eos")

    def change(manifest: Any) -> None:
        first, second = manifest["source"][:2]
        second["footer_sha256"], second["size"] = first["footer_sha256"], first["size"]

    change_manifest(output, change)
    (line,) = told(output, "warning")
    assert "have one footer, and other texts in row groups 0" in line


def source_change(name: str) -> Any:
    def change(manifest: Any) -> None:
        source = manifest["source"]
        match name:
            case "path":
                source[1]["path"] = source[0]["path"]
            case "group":
                source[0]["row_groups"][1] = source[0]["row_groups"][0]
            case "start":
                source[0]["starts"][1] = source[0]["starts"][0]
            case "first":
                source[0]["starts"][0] = 1
            case "end":
                source[1]["starts"][-1] = 10**6
            case "order":
                source[0]["starts"][1:3] = source[0]["starts"][2:0:-1]
            case "some":
                del source[1]["starts"]

    return change


@pytest.mark.parametrize("output_name", ["eos", "text"])
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("path", "a: a/0.parquet stands 2 times in its source"),
        ("group", "a: a/0.parquet: row groups 0 stand in it more than once"),
        ("start", "a: a/0.parquet row group 0 and a/0.parquet row group 1 overlap: both begin at 0"),
        ("first", "a: no row group begins at 0; the first, a/0.parquet row group 0, at 1"),
        ("end", " begins at 1,000,000, and the dataset ends at "),
        ("order", "a: a/0.parquet row group 1 begins behind a/0.parquet row group 2, which is not the order"),
        ("some", "a: a/1.parquet: has no starts, and other sources have some"),
    ],
)
def test_ranges_of_the_source_that_cannot_be(
    copied: Callable[[str], Path], output_name: str, name: str, line: str
) -> None:
    output = copied(output_name)
    change_manifest(output, source_change(name))
    assert any(line in problem for problem in told(output, "problem"))


def test_rows_that_do_not_fit_the_documents(copied: Callable[[str], Path]) -> None:
    output = copied("eos")

    def change(manifest: Any) -> None:
        manifest["rows"] += 2

    change_manifest(output, change)
    (line,) = told(output, "problem")
    assert " rows of the source " in line


def test_the_tokenizer_beside_the_dataset(copied: Callable[[str], Path]) -> None:
    output = copied("eos")
    (path,) = output.glob("tokenizer-*/tokenizer.json")
    content = path.read_text()
    path.write_text(content + "\n")
    (line,) = told_known(output)
    assert re.fullmatch(
        rf"{path}: sha256 [0-9a-f]{{64}}, not [0-9a-f]{{64}}; it is not the tokenizer of {output}/a", line
    )
    path.unlink()
    (line,) = told_known(output)
    assert line.startswith(f"{output}/a: its tokenizer cannot be used: there is no {path}")
    with pytest.raises(BroetchenError) as caught:
        verify(str(output), quick=True)
    assert str(caught.value) == f"{path}: missing"
    path.symlink_to("/etc/passwd")
    (line,) = told_known(output)
    assert "a link, which is not followed" in line
    assert "root:" not in line


def told_known(output: Path) -> list[str]:
    """Where shards cannot be read since their tokenizer may not be."""
    return [
        problem
        for folder, manifest in find_manifests(str(output)).items()
        for problem in known_problems(folder, manifest)
    ]


def test_a_vocabulary_of_another_size(copied: Callable[[str], Path]) -> None:
    output = copied("both")

    def change(manifest: Any) -> None:
        manifest["tokenizer"]["vocab_size"] += 1
        manifest["tokenizer"]["eos_id"] = manifest["tokenizer"]["vocab_size"]

    change_manifest(output, change)
    size = manifest_json(output)["tokenizer"]["vocab_size"]
    assert told_known(output) == [
        f"{output}/a: its tokenizer has {size - 1:,} ids, and the manifest says {size:,}",
        f"{output}/a: EOS is {size:,}, and the vocabulary ends at {size - 1:,}",
    ]


def test_a_newer_format_and_an_older_one(copied: Callable[[str], Path]) -> None:
    output = copied("eos")

    def newer(manifest: Any) -> None:
        manifest["format_version"] = 3

    change_manifest(output, make_older)
    assert told(output, "problem") == []
    assert told(output, "unchecked") == [
        "a: where row groups begin, and what their texts are: format version 1 does not say it"
    ]
    change_manifest(output, newer)
    with pytest.raises(BroetchenError, match="newer version"):
        told(output, "problem")


def test_tokens_that_are_missing_to_less_than_nothing(copied: Callable[[str], Path]) -> None:
    """With `keep`, a negative number would let a split hold more than its budget."""
    output = copied("eos")

    def change(manifest: Any) -> None:
        train = manifest["splits"]["train"]
        train["missing"], train["budget"] = -100, train["tokens"] - 100
        manifest["config"]["dataset"].update(tokens=train["budget"], on_shortfall="keep")

    change_manifest(output, change)
    with pytest.raises(BroetchenError, match=r"manifest\.json: not a manifest .*splits\.train\.missing"):
        verify(str(output), quick=True)


def test_what_is_left_over_and_what_is_no_dataset(copied: Callable[[str], Path]) -> None:
    output = copied("eos")
    dataset, shard = output / "a", manifest_json(output)["splits"]["eval"]["shards"][0]["file"]
    for path in (
        dataset / "notes.txt",
        dataset / f".{shard}.tmp-0123abc",
        dataset / ".broetchen" / "0123" / "shard-00000.json",
        output / ".manifest.json.tmp-0123abc",
        output / ".broetchen.lock",
        output / "begun" / ".broetchen" / "0123" / "shard-00000.arecord",
        output / "bare" / "train-00000-of-00001.arecord",
        output / "further" / "down" / "manifest.json",
        output / "elsewhere" / "notes.txt",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert told(output, "problem") == []
    assert sorted(told(output, "warning")) == [
        ".broetchen.lock: a build is at work here, or was killed; what it writes may not be verified yet",
        ".manifest.json.tmp-0123abc: left by a writer that was killed; delete it when no build is at work",
        f"a/.broetchen: {WORK}",
        f"a/.{shard}.tmp-0123abc: left by a writer that was killed; delete it when no build is at work",
        "a/notes.txt: not of the dataset",
        "bare: no dataset, since its 1 shards have no manifest.json; nothing of it was verified",
        "begun: no dataset yet, since it has unfinished work and no manifest.json; run its build again",
        "further/down/manifest.json: a dataset further down, which was not verified; name its folder to do it",
    ]
    # And of one dataset alone, what is in its folder.
    alone = verify(str(dataset), quick=True)
    assert [line.removeprefix(f"{dataset}/") for line in alone.warnings] == [
        f".broetchen: {WORK}",
        f".{shard}.tmp-0123abc: left by a writer that was killed; delete it when no build is at work",
        "notes.txt: not of the dataset",
    ]


@pytest.mark.parametrize("kind", ["link", "fifo", "device"])
@pytest.mark.timeout(60)
def test_what_is_no_regular_file_is_not_opened(copied: Callable[[str], Path], kind: str) -> None:
    """A FIFO without a writer would be waited for, and /dev/zero be read for ever."""
    output = copied("eos")
    path = output / "a" / manifest_json(output)["splits"]["train"]["shards"][0]["file"]
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/etc/passwd" if kind == "link" else "/dev/zero")
    shown = {"link": "a link, which is not followed", "fifo": "a FIFO", "device": "a link, which is not followed"}[kind]
    line = f"a/{path.name}: not a regular file but {shown}; put the file itself there"
    assert told(output, "problem") == [line]
    with pytest.raises(BroetchenError) as caught:
        verify(str(output), quick=True)
    assert str(caught.value) == f"{output}/{line}"


def test_a_file_beside_a_shard_is_held_against_its_checksum(copied: Callable[[str], Path]) -> None:
    output = copied("eos")
    name = manifest_json(output)["splits"]["train"]["shards"][0]["file"]
    beside = output / "a" / f"{name}.idx"
    beside.write_bytes(b"index")

    def change(manifest: Any) -> None:
        digest = "c1b15b0a5a2a9f5f1b0dd0e1b7b0b8d4e8f8a5c5f0a3d8e7b6c5d4e3f2a1b0c9"
        manifest["splits"]["train"]["shards"][0]["beside"] = [{"file": beside.name, "bytes": 6, "sha256": digest}]

    change_manifest(output, change)
    size, checksum = told(output, "problem")
    assert size == f"a/{beside.name}: 5 bytes, not 6"
    assert checksum.startswith(f"a/{beside.name}: sha256 ")
    assert told(output, "warning") == []
    beside.unlink()
    assert told(output, "problem") == [f"a/{beside.name}: missing"]


def double(groups: list[list[str]]) -> list[list[str]]:
    """The row groups with every third document of the last two replaced by one of the first."""
    last = [[text if row % 3 else groups[0][row] for row, text in enumerate(group)] for group in groups[-2:]]
    return [*groups[:-2], *last]


def documents_in(output: Path, split: str, records: dict[str, Any]) -> list[Any]:
    """The documents of a split, or where neither BOS nor EOS tell them apart, its records."""
    paths = [output / "a" / shard["file"] for shard in manifest_json(output)["splits"][split]["shards"]]
    if records.get("format") == "parquet":
        return [text for path in paths for text in pq.read_table(path)["text"].to_pylist()]
    if records.get("format") == "text":
        return read_texts(output / "a", split)
    found = [record for path in paths for record in records_of(path)]
    if not records.keys() & {"add_bos", "add_eos"}:
        return [tuple(record) for record in found]
    documents: list[list[int]] = [[]]
    for record in found:
        if documents[-1] and (documents[-1][-1] == EOS or record[0] == BOS):
            documents.append([])
        documents[-1] += record
    return [tuple(document) for document in documents]


@pytest.mark.parametrize(
    ("records", "unit"),
    [
        ({"max_tokens": 16, "add_eos": True}, "documents"),
        pytest.param({"max_tokens": 5, "add_bos": True}, "documents", marks=pytest.mark.slow),
        ({"format": "text"}, "documents"),
        pytest.param({"format": "parquet"}, "documents", marks=pytest.mark.slow),
        pytest.param({"max_tokens": 64}, "records", marks=pytest.mark.slow),
    ],
)
def test_texts_that_stand_in_train_and_eval(tmp_path: Path, records: dict[str, Any], unit: str) -> None:
    """This holds for documents that are longer than a record as well."""
    output = build_output(tmp_path, {"0": double(GROUPS)}, records=records, tokens=1500, eval_tokens=200)
    train, held_out = (documents_in(output, split, records) for split in ("train", "eval"))
    shared = sum(document in set(train) for document in held_out)
    assert 0 < shared < len(held_out)
    share = f"{shared} of {len(held_out)} {unit} of eval ({100 * shared / len(held_out):.2f} %)"
    assert verify(str(output)).warnings == (f"{output}/a: {share} stand in train as well",)


def test_eval_of_one_dataset_in_train_of_another(tmp_path: Path) -> None:
    for name, groups in {"a": GROUPS[6:], "b": GROUPS}.items():
        write_parquet(tmp_path / name / "0.parquet", groups)
    datasets = {
        "a": {"source": "a/*.parquet", "tokens": 300, "eval_tokens": 200},
        "b": {"source": "b/*.parquet", "tokens": 1800},
    }
    output = build_output(tmp_path, {}, datasets=datasets)
    (line,) = verify(str(output)).warnings
    assert line.startswith(f"{output}/a: ")
    assert line.endswith(f" stand in train of {output}/b")
    number, _, of, *_ = line.removeprefix(f"{output}/a: ").split()
    # All but the two in which the split begins and ends.
    assert int(number) == int(of) - 2
