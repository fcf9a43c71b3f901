"""`verify` finds all faults of a dataset, and names the file; and the output of a build has none.

Most datasets here are written by hand, with a manifest that fits them: each id is a byte of text, so that the tokens of
a document are its bytes in every format.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grain.python as grain
import pyarrow as pa
import pytest
import yaml
from maxtext.input_pipeline.protos import example_pb2

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import build
from beam_pipelines.jobs.verify import verify
from tests.support.command import run_command
from tests.support.corpora import TOKENIZER, write_parquet
from tests.support.small_tokenizers import byte_level
from transforms.arrayrecord.records import Format
from transforms.arrayrecord.writer import ShardWriter
from transforms.dataset.findings import raise_problems
from transforms.dataset.inventory import dataset_problems
from transforms.dataset.manifest import Manifest, write_manifest
from transforms.dataset.verify import ShardCheck, shard_checks, shard_problems
from transforms.errors import BroetchenError
from transforms.tokenizer.spec import TokenizerSpec

FORMATS: tuple[Format, ...] = ("tokens", "text", "parquet")
MAX_TOKENS, VOCABULARY = 4, 256
TRAIN, EVAL = [["ab", "c"], ["de"]], [["fgh"]]
# An empty ArrayRecord file is as large as one with some records.
SHARD_BYTES = 131_072
REMOVED = object()


def ids_record(ids: Sequence[int], feature: str = "text") -> bytes:
    """A record by protobuf's own classes, as our writer refuses ids that no vocabulary has."""
    example = example_pb2.Example()
    example.features.feature[feature].int64_list.value.extend(ids)
    example.features.feature[feature].int64_list.SetInParent()
    return example.SerializeToString()


def text_record(*texts: bytes, feature: str = "text") -> bytes:
    example = example_pb2.Example()
    example.features.feature[feature].bytes_list.value.extend(texts)
    return example.SerializeToString()


def write_records(path: Path, records: Sequence[bytes], *, compression: str = "zstd") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with ShardWriter(str(path), compression=compression) as writer:
        writer.write_many(records)
    return path


def write_documents(path: Path, record_format: Format, documents: Sequence[str]) -> Path:
    """A shard with a record, or in parquet a row, for each."""
    if record_format == "parquet":
        write_parquet(path, list(itertools.batched(documents, 256)), column="body")
        return path
    encode = ids_record if record_format == "tokens" else text_record
    return write_records(path, [encode(document.encode()) for document in documents])


def of_file(path: Path) -> tuple[int, str]:
    """Size and checksum."""
    content = path.read_bytes()
    return len(content), hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TokenizerSpec:
    """It has a token for each byte, and no others."""
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


def write_tokenizer(path: Path, **settings: Any) -> TokenizerSpec:
    path.write_text(json.dumps(byte_level(**settings)))
    return TokenizerSpec(str(path), of_file(path)[1], bos_token=None, eos_token=None, special_tokens="text")


def check_of(path: Path, tokens: int, records: int, tokenizer: TokenizerSpec, **others: Any) -> ShardCheck:
    """A check that finds nothing wrong with a file but with its records."""
    size, sha256 = of_file(path)
    record_format: Format = "parquet" if path.suffix == ".parquet" else "tokens"
    check = ShardCheck(
        folder=str(path.parent),
        file=path.name,
        tokens=tokens,
        records=records,
        size=size,
        sha256=sha256,
        format=record_format,
        text_column="body",
        max_tokens=MAX_TOKENS,
        vocab_size=VOCABULARY,
        tokenizer=tokenizer,
        engine="tokenizers",
    )
    return dataclasses.replace(check, **others)


def write_dataset(
    folder: Path,
    record_format: Format = "tokens",
    splits: Mapping[str, Sequence[Sequence[str]]] | None = None,
) -> Manifest:
    """A dataset without a build, and the manifest that it should have."""
    entries: dict[str, Any] = {}
    for name, shards in (splits or {"train": TRAIN, "eval": EVAL}).items():
        written: list[dict[str, Any]] = []
        for index, documents in enumerate(shards):
            extension = "parquet" if record_format == "parquet" else "arecord"
            path = folder / f"{name}-{index:05d}-of-{len(shards):05d}.{extension}"
            size, sha256 = of_file(write_documents(path, record_format, documents))
            counts = {"tokens": sum(map(len, documents)), "documents": len(documents), "records": len(documents)}
            written.append({"file": path.name, **counts, "bytes": size, "sha256": sha256})
        sums = {key: sum(entry[key] for entry in written) for key in ("tokens", "documents", "records", "bytes")}
        entries[name] = {"budget": sums["tokens"], "missing": 0, **sums, "shards": written}
    source = {"tokens": entries["train"]["budget"], "on_shortfall": "fail", "text_column": "body"}
    if "eval" in entries:
        source["eval_tokens"] = entries["eval"]["budget"]
    sha256 = write_tokenizer(folder.parent / "tokenizer.json").sha256
    return Manifest.model_validate(
        {
            "format_version": 1,
            "mix": "mix",
            "dataset": folder.name,
            "fingerprint": "0123",
            "config": {"records": {"format": record_format, "max_tokens": MAX_TOKENS}, "dataset": source},
            "tokenizer": {
                "path": "../tokenizer.json",
                "sha256": sha256,
                "vocab_size": VOCABULARY,
                "bos_id": None,
                "eos_id": None,
                "special_tokens": "text",
            },
            "splits": entries,
            "skipped": {},
            "source": [],
            "versions": {},
        }
    )


def changed(manifest: Manifest, changes: Mapping[str, Any]) -> Manifest:
    """The manifest with other values, by place ("splits.eval.shards.0.file"); a function gets the old value."""
    content: Any = manifest.model_dump()
    for place, value in changes.items():
        *parents, last = [int(key) if key.isdigit() else key for key in place.split(".")]
        holder = content
        for key in parents:
            holder = holder[key]
        if value is REMOVED:
            del holder[last]
        else:
            holder[last] = value(holder[last]) if callable(value) else value
    return Manifest.model_validate(content)


def tokens_line(split: str, found: int, said: int, budget: int) -> str:
    return f": {split} adds up to {found:,} tokens, and the manifest says {said:,} of {budget:,}"


def sums_line(split: str, part: str, found: int, said: int) -> str:
    return f": {split} adds up to {found:,} {part}, and the manifest says {said:,}"


def budgets_line(budgets: Mapping[str, int], configured: Mapping[str, int]) -> str:
    return f": the manifest's budgets are {budgets}, and its config's {configured}"


def set_line(split: str, shards: int) -> str:
    return f": {split} is not a complete set of shards: the manifest names {shards}"


MISSING_TOKENS = ": tokens are missing, and its config does not keep a short source"


@pytest.mark.parametrize("record_format", FORMATS)
def test_a_dataset_as_its_manifest_says_is_sound(tmp_path: Path, record_format: Format) -> None:
    folder = tmp_path / "a"
    manifest = write_dataset(folder, record_format)
    (folder / "notes.txt").write_text("not a shard, and none of our business")
    (folder / "folder.arecord").mkdir()
    assert dataset_problems(str(folder), manifest) == []
    checks = list(shard_checks(str(folder), manifest, "tokenizers"))
    assert [shard_problems(check) for check in checks] == [[], [], []]
    # It is this dataset's manifest alone that makes it so.
    for change in ({"tokens": 0}, {"records": 0}, {"size": 0}, {"sha256": ""}):
        assert all(shard_problems(dataclasses.replace(check, **change)) for check in checks)


@pytest.mark.parametrize("eval_tokens", [REMOVED, None, 0])
def test_a_dataset_without_an_eval_split_is_sound(tmp_path: Path, eval_tokens: Any) -> None:
    manifest = write_dataset(tmp_path / "a", splits={"train": TRAIN})
    if eval_tokens is not REMOVED:
        manifest = changed(manifest, {"config.dataset.eval_tokens": eval_tokens})
    assert dataset_problems(str(tmp_path / "a"), manifest) == []


@pytest.mark.parametrize("missing", [0, 2])
def test_a_short_source_that_is_kept_is_sound(tmp_path: Path, missing: int) -> None:
    changes = {
        "splits.train.missing": missing,
        "splits.train.budget": 5 + missing,
        "config.dataset.tokens": 5 + missing,
        "config.dataset.on_shortfall": "keep",
    }
    assert dataset_problems(str(tmp_path / "a"), changed(write_dataset(tmp_path / "a"), changes)) == []


DAMAGED_MANIFESTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "tokens": ({"splits.train.tokens": 6}, [tokens_line("train", 5, 6, 5)]),
    "tokens of eval": ({"splits.eval.tokens": 2}, [tokens_line("eval", 3, 2, 3)]),
    "tokens of a shard": ({"splits.train.shards.1.tokens": 3}, [tokens_line("train", 6, 5, 5)]),
    "tokens, and the budget with them": (
        {"splits.train.tokens": 6, "splits.train.budget": 6, "config.dataset.tokens": 6},
        [tokens_line("train", 5, 6, 6)],
    ),
    "budget above the tokens": (
        {"splits.train.budget": 6, "config.dataset.tokens": 6},
        [tokens_line("train", 5, 5, 6)],
    ),
    "budget below the tokens": (
        {"splits.eval.budget": 2, "config.dataset.eval_tokens": 2},
        [tokens_line("eval", 3, 3, 2)],
    ),
    "missing tokens that are there": (
        {"splits.train.missing": 1, "config.dataset.on_shortfall": "keep"},
        [tokens_line("train", 5, 5, 5)],
    ),
    "documents": ({"splits.train.documents": 4}, [sums_line("train", "documents", 3, 4)]),
    "documents of a shard": ({"splits.eval.shards.0.documents": 0}, [sums_line("eval", "documents", 0, 1)]),
    "records": ({"splits.eval.records": 2}, [sums_line("eval", "records", 1, 2)]),
    "records of a shard": ({"splits.train.shards.0.records": 1}, [sums_line("train", "records", 2, 3)]),
    "bytes": ({"splits.eval.bytes": 0}, [sums_line("eval", "bytes", SHARD_BYTES, 0)]),
    "bytes of a shard": (
        {"splits.train.shards.1.bytes": 9},
        [sums_line("train", "bytes", SHARD_BYTES + 9, 2 * SHARD_BYTES)],
    ),
    "order": ({"splits.train.shards": lambda shards: shards[::-1]}, [set_line("train", 2)]),
    "a shard left out, and all sums made again": (
        {
            "splits.train.shards": lambda shards: shards[:1],
            "config.dataset.tokens": 3,
            **{f"splits.train.{key}": value for key, value in {"budget": 3, "tokens": 3, "documents": 2}.items()},
            **{f"splits.train.{key}": value for key, value in {"records": 2, "bytes": SHARD_BYTES}.items()},
        },
        [set_line("train", 1), "/train-00001-of-00002.arecord: not in the manifest"],
    ),
    "another name": (
        {"splits.eval.shards.0.file": "eval-00000-of-00002.arecord"},
        [
            set_line("eval", 1),
            "/eval-00000-of-00002.arecord: missing",
            "/eval-00000-of-00001.arecord: not in the manifest",
        ],
    ),
    "budget of the config": (
        {"config.dataset.tokens": 6},
        [budgets_line({"train": 5, "eval": 3}, {"train": 6, "eval": 3})],
    ),
    "budget of the config's eval": (
        {"config.dataset.eval_tokens": 4},
        [budgets_line({"train": 5, "eval": 3}, {"train": 5, "eval": 4})],
    ),
    "a split that the config has not": (
        {"config.dataset.eval_tokens": REMOVED},
        [budgets_line({"train": 5, "eval": 3}, {"train": 5})],
    ),
    "a split forgotten": (
        {"splits.eval": REMOVED},
        [budgets_line({"train": 5}, {"train": 5, "eval": 3}), "/eval-00000-of-00001.arecord: not in the manifest"],
    ),
    "eval at the start by the config": (
        {"config.dataset.eval_position": "start"},
        [": its eval split is at the start of the stream by its config, and the manifest has train first"],
    ),
    "missing tokens of one split": (
        {"splits.eval.missing": 1, "splits.eval.budget": 4, "config.dataset.eval_tokens": 4},
        [MISSING_TOKENS],
    ),
}


@pytest.mark.parametrize("damage", DAMAGED_MANIFESTS)
def test_a_manifest_that_does_not_fit(tmp_path: Path, damage: str) -> None:
    changes, lines = DAMAGED_MANIFESTS[damage]
    folder = str(tmp_path / "a")
    manifest = changed(write_dataset(tmp_path / "a"), changes)
    assert dataset_problems(folder, manifest) == [folder + line for line in lines]


@pytest.mark.parametrize("record_format", FORMATS)
def test_shards_that_are_gone_and_shards_too_many(tmp_path: Path, record_format: Format) -> None:
    """The shards of all splits are named, after all other problems."""
    folder = tmp_path / "a"
    manifest = changed(write_dataset(folder, record_format), {"splits.train.documents": 0})
    extension = "parquet" if record_format == "parquet" else "arecord"
    for name, other in {"train-00001-of-00002": "train-00002-of-00003", "eval-00000-of-00001": "a copy"}.items():
        (folder / f"{name}.{extension}").rename(folder / f"{other}.{extension}")
    assert dataset_problems(str(folder), manifest) == [
        f"{folder}{sums_line('train', 'documents', 3, 0)}",
        f"{folder}/eval-00000-of-00001.{extension}: missing",
        f"{folder}/train-00001-of-00002.{extension}: missing",
        f"{folder}/a copy.{extension}: not in the manifest",
        f"{folder}/train-00002-of-00003.{extension}: not in the manifest",
    ]
    # Each of the others is read, and of those that are gone nothing more is said.
    assert [shard_problems(check) for check in shard_checks(str(folder), manifest, "tokenizers")] == [[], [], []]


@pytest.mark.parametrize("record_format", FORMATS)
def test_what_is_checked_of_each_shard(tmp_path: Path, record_format: Format) -> None:
    folder = tmp_path / "a"
    manifest = write_dataset(folder, record_format)
    extension = "parquet" if record_format == "parquet" else "arecord"
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json")
    expected = [
        check_of(folder / f"{name}.{extension}", tokens, records, tokenizer, format=record_format, engine="gigatoken")
        for name, tokens, records in (
            ("train-00000-of-00002", 3, 2),
            ("train-00001-of-00002", 2, 1),
            ("eval-00000-of-00001", 3, 1),
        )
    ]
    expected[2] = dataclasses.replace(expected[2], split="eval")
    found = list(shard_checks(str(folder), manifest, "gigatoken"))
    assert found == expected
    # Which specs of tokenizers do not compare.
    assert [check.tokenizer.path for check in found] == [str(tmp_path / "tokenizer.json")] * 3
    assert [check.path for check in found] == [f"{folder}/{check.file}" for check in expected]


@pytest.mark.parametrize("place", [0, 255, 256, 511, 512, 599])
@pytest.mark.parametrize("record_format", ["tokens", "text"])
def test_a_wrong_record_wherever_it_stands(
    tmp_path: Path, tokenizer: TokenizerSpec, record_format: Format, place: int
) -> None:
    """Grain is asked for 256 records at a time."""
    records = [ids_record([97]) if record_format == "tokens" else text_record(b"a")] * 600
    records[place] = ids_record([VOCABULARY]) if record_format == "tokens" else text_record(b"\xff")
    path = write_records(tmp_path / "a.arecord", records)
    wrong = {
        "tokens": "an id outside the vocabulary: 256 to 256, and the vocabulary ends at 256",
        "text": "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
    }[record_format]
    lines = [f"{path}: record {place}: {wrong}"]
    assert shard_problems(check_of(path, 599, 600, tokenizer, format=record_format)) == lines
    # Its tokens are none.
    lines.append(f"{path}: 599 tokens, not 600")
    assert shard_problems(check_of(path, 600, 600, tokenizer, format=record_format)) == lines


@pytest.mark.parametrize("row", [None, b"", b"\xff"])
@pytest.mark.parametrize(("place", "group"), [(0, 0), (255, 0), (256, 1), (599, 2)])
def test_a_row_without_text_wherever_it_stands(
    tmp_path: Path, tokenizer: TokenizerSpec, row: bytes | None, place: int, group: int
) -> None:
    """For parquet the row group is named: it is read as a whole, and all rows before it are sound."""
    rows: list[Any] = [b"ab"] * 600
    rows[place] = row
    path = tmp_path / "a.parquet"
    write_parquet(path, list(itertools.batched(rows, 256)), column="body", kind=pa.binary())
    assert shard_problems(check_of(path, 1198, 600, tokenizer)) == [
        f"{path}: cannot be read after record {256 * group}: {path}: row group {group} has rows without text, which no "
        "build writes; build it again"
    ]


@pytest.mark.parametrize("record_format", FORMATS)
@pytest.mark.parametrize("count", [0, 256, 257, 600])
def test_records_and_tokens_are_all_counted(
    tmp_path: Path, tokenizer: TokenizerSpec, record_format: Format, count: int
) -> None:
    path = tmp_path / ("a.parquet" if record_format == "parquet" else "a.arecord")
    write_documents(path, record_format, ["abc"[: 1 + number % 3] for number in range(count)])
    tokens = sum(1 + number % 3 for number in range(count))
    check = check_of(path, tokens, count, tokenizer, format=record_format)
    assert shard_problems(check) == []
    for change in (-1, 1):
        other = dataclasses.replace(check, tokens=tokens + change, records=count + 2 * change)
        assert shard_problems(other) == [
            f"{path}: {count:,} records, not {count + 2 * change:,}",
            f"{path}: {tokens:,} tokens, not {tokens + change:,}",
        ]


OUTSIDE = "an id outside the vocabulary: {} to {}, and the vocabulary ends at 256"
ID_RECORDS: list[tuple[list[int], str | None]] = [
    ([], "0 ids, not 1 to 4"),
    ([0], None),
    ([255], None),
    ([0, 1, 2, 255], None),
    ([0, 1, 2, 3, 255], "5 ids, not 1 to 4"),
    ([-1, 0], OUTSIDE.format(-1, 0)),
    ([0, 256], OUTSIDE.format(0, 256)),
    ([-(2**63), 2**63 - 1], OUTSIDE.format(-(2**63), 2**63 - 1)),
    ([2**32], OUTSIDE.format(2**32, 2**32)),
]


@pytest.mark.parametrize(("ids", "problem"), ID_RECORDS, ids=lambda value: str(value)[:20])
def test_a_record_of_ids(tmp_path: Path, tokenizer: TokenizerSpec, ids: list[int], problem: str | None) -> None:
    path = write_records(tmp_path / "a.arecord", [ids_record([1, 2]), ids_record(ids), ids_record([3])])
    tokens = 3 + (0 if problem else len(ids))
    lines = [f"{path}: record 1: {problem}"] if problem else []
    assert shard_problems(check_of(path, tokens, 3, tokenizer)) == lines


TEXT_RECORDS: list[tuple[bytes, str | None]] = [
    (b"", "an empty text, which no build writes"),
    (b"\0", None),
    (b"abcd", None),
    (b"abcde", None),  # `max_tokens` is of records of ids
    ("Brötchen".encode(), None),
    (b"ab\xc3", "'utf-8' codec can't decode byte 0xc3 in position 2: unexpected end of data"),
    (b"\xed\xa0\x80", "'utf-8' codec can't decode byte 0xed in position 0: invalid continuation byte"),
]


@pytest.mark.parametrize(("text", "problem"), TEXT_RECORDS, ids=lambda value: str(value)[:20])
def test_a_record_of_text(tmp_path: Path, tokenizer: TokenizerSpec, text: bytes, problem: str | None) -> None:
    path = write_records(tmp_path / "a.arecord", [text_record(b"ab"), text_record(text), text_record(b"c")])
    tokens = 3 + (0 if problem else len(text))
    lines = [f"{path}: record 1: {problem}"] if problem else []
    assert shard_problems(check_of(path, tokens, 3, tokenizer, format="text")) == lines


def test_rows_of_any_length(tmp_path: Path, tokenizer: TokenizerSpec) -> None:
    """`max_tokens` is of records of ids."""
    path = write_documents(tmp_path / "a.parquet", "parquet", ["a", "abcd", "abcde", "ö"])
    assert shard_problems(check_of(path, 12, 4, tokenizer)) == []


def test_records_of_another_kind(tmp_path: Path, tokenizer: TokenizerSpec) -> None:
    records = [b"no example", ids_record([1]), text_record(b"a"), ids_record([1], "ids"), text_record(b"a", b"b")]
    path = write_records(tmp_path / "a.arecord", records)
    other = "read it as records of the other format (tokens or text)"
    first, *of_ids = shard_problems(check_of(path, 1, 5, tokenizer))
    assert first.startswith(f"{path}: record 0: a record of 10 bytes is not a tf.train.Example (")
    assert of_ids == [
        f"{path}: record 2: feature 'text' of a record is bytes_list, not int64_list; {other}",
        f"{path}: record 3: a record has no feature 'text'; it has 'ids': name one of them",
        f"{path}: record 4: feature 'text' of a record is bytes_list, not int64_list; {other}",
    ]
    assert shard_problems(check_of(path, 1, 5, tokenizer, format="text")) == [
        first,
        f"{path}: record 1: feature 'text' of a record is int64_list, not bytes_list; {other}",
        f"{path}: record 3: a record has no feature 'text'; it has 'ids': name one of them",
        f"{path}: record 4: feature 'text' of a record has 2 texts; a record of text has one",
    ]


def test_a_shard_of_another_format(tmp_path: Path, tokenizer: TokenizerSpec) -> None:
    ids = write_documents(tmp_path / "a.arecord", "tokens", ["ab"])
    rows = write_documents(tmp_path / "a.parquet", "parquet", ["ab"])
    for path, record_format in ((ids, "parquet"), (rows, "tokens"), (rows, "text")):
        (line,) = shard_problems(check_of(path, 2, 1, tokenizer, format=record_format))
        assert line.startswith(f"{path}: cannot be read after record 0: ")


def test_five_problems_of_a_file_are_enough(tmp_path: Path, tokenizer: TokenizerSpec) -> None:
    path = write_records(tmp_path / "a.arecord", [ids_record([])] * 7)
    lines = [f"{path}: record {number}: 0 ids, not 1 to 4" for number in range(7)]
    check = check_of(path, 0, 7, tokenizer)
    assert shard_problems(check) == lines[:5]
    others = [f"{path}: {SHARD_BYTES:,} bytes, not 9", f"{path}: sha256 {check.sha256}, not ab"]
    assert shard_problems(dataclasses.replace(check, size=9, sha256="ab")) == [*others, *lines[:3]]
    # But what it all adds up to is said.
    assert shard_problems(dataclasses.replace(check, tokens=1, records=6)) == [
        *lines[:5],
        f"{path}: 7 records, not 6",
        f"{path}: 0 tokens, not 1",
    ]


def test_a_file_that_is_not_the_one_that_was_built(tmp_path: Path, tokenizer: TokenizerSpec) -> None:
    """Even where all its records are as good as they were."""
    path = write_records(tmp_path / "a.arecord", [ids_record([1])])
    built = check_of(path, 1, 1, tokenizer)
    write_records(path, [ids_record([2])])
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert shard_problems(built) == [f"{path}: sha256 {found}, not {built.sha256}"]


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (0, "ArrayRecord file should be at least 64KB big"),
        (65_536, "no reason is given"),
        (65_537, "Invalid chunk boundary: 1; at byte 1; Failed to read RiegeliPostscript"),
    ],
)
def test_a_file_cut_short(tmp_path: Path, tokenizer: TokenizerSpec, size: int, reason: str) -> None:
    path = write_records(tmp_path / "a.arecord", [ids_record([1])])
    built = check_of(path, 1, 1, tokenizer)
    path.write_bytes(path.read_bytes()[:size])
    assert shard_problems(built) == [
        f"{path}: {size:,} bytes, not {SHARD_BYTES:,}",
        f"{path}: sha256 {of_file(path)[1]}, not {built.sha256}",
        f"{path}: cannot be read after record 0: {reason}",
    ]


@pytest.mark.parametrize("record_format", ["tokens", "text"])
def test_a_damaged_record_with_a_checksum_that_fits(
    tmp_path: Path, tokenizer: TokenizerSpec, record_format: Format
) -> None:
    """ArrayRecord has checksums of its own. Records that Grain reads before the fault are counted."""
    encode = ids_record if record_format == "tokens" else text_record
    path = tmp_path / "a.arecord"
    write_records(path, [encode(str(number).encode()) for number in range(100, 700)], compression="none")
    content = bytearray(path.read_bytes())
    content[content.index(encode(b"400")) + 12] ^= 1
    path.write_bytes(content)
    (line,) = shard_problems(check_of(path, 1800, 600, tokenizer, format=record_format))
    assert line.startswith(f"{path}: cannot be read after record 256: Corrupted Riegeli/records file: ")


@pytest.mark.parametrize("kind", [ValueError, IndexError])
def test_whatever_grain_raises_is_told_of_its_file(
    tmp_path: Path, tokenizer: TokenizerSpec, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """No damage of ours makes it raise these, but its code does, and the other shards are to be read in any case."""
    read = grain.ArrayRecordDataSource.__getitems__

    def fail_later(source: Any, numbers: Sequence[int]) -> Any:
        if 512 in numbers:
            raise kind("no such record")
        return read(source, numbers)

    monkeypatch.setattr(grain.ArrayRecordDataSource, "__getitems__", fail_later)
    path = write_records(tmp_path / "a.arecord", [ids_record([1])] * 600)
    check = check_of(path, 600, 600, tokenizer, sha256="ab")
    assert shard_problems(check) == [
        f"{path}: sha256 {of_file(path)[1]}, not ab",
        f"{path}: cannot be read after record 512: no such record",
    ]


def test_a_file_that_cannot_be_opened_is_a_problem_of_its_own(tmp_path: Path, tokenizer: TokenizerSpec) -> None:
    """As one that belongs to somebody else, or lies on a bad disk: the other shards are still to be read."""
    path = write_records(tmp_path / "a.arecord", [ids_record([1])])
    check = check_of(path, 1, 1, tokenizer)
    path.unlink()
    assert shard_problems(check) == []  # which `dataset_problems` tells
    path.mkdir()
    assert shard_problems(check) == [f"{path}: not a regular file but a folder; put the file itself there"]


def test_a_file_that_goes_while_it_is_looked_at(
    tmp_path: Path, tokenizer: TokenizerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_records(tmp_path / "a.arecord", [ids_record([1])])
    check = check_of(path, 1, 1, tokenizer)
    exists = os.path.exists

    def exists_no_longer(found: Any) -> bool:
        there = exists(found)
        if found == str(path):
            path.unlink(missing_ok=True)
        return there

    monkeypatch.setattr(os.path, "exists", exists_no_longer)
    assert shard_problems(check) == [f"{path}: cannot be looked up (No such file or directory); check the path"]


@pytest.mark.parametrize("record_format", ["text", "parquet"])
def test_the_tokenizer_has_to_be_the_one_that_counted(
    tmp_path: Path, tokenizer: TokenizerSpec, record_format: Format
) -> None:
    path = tmp_path / ("a.parquet" if record_format == "parquet" else "a.arecord")
    write_documents(path, record_format, ["ab", "c"])
    other = dataclasses.replace(tokenizer, sha256="ab")
    assert shard_problems(check_of(path, 3, 2, other, format=record_format)) == [
        f"{path}: cannot be read after record 0: {tokenizer.path}: has changed since the build began (sha256 "
        f"{tokenizer.sha256}, not ab); put the old file back, or start the build again"
    ]


@pytest.mark.parametrize("record_format", ["text", "parquet"])
def test_the_engine_that_was_asked_for_counts(tmp_path: Path, record_format: Format) -> None:
    """Else the message says why it cannot."""
    unfit = write_tokenizer(tmp_path / "tokenizer.json", normalizer={"type": "Lowercase"})
    path = tmp_path / ("a.parquet" if record_format == "parquet" else "a.arecord")
    check = check_of(write_documents(path, record_format, ["AB"]), 2, 1, unfit, format=record_format)
    for engine in ("tokenizers", "auto"):
        assert shard_problems(dataclasses.replace(check, engine=engine)) == []
    (line,) = shard_problems(dataclasses.replace(check, engine="gigatoken"))
    assert line.startswith(f"{path}: cannot be read after record 0: gigatoken ")


@pytest.mark.parametrize("record_format", ["text", "parquet"])
def test_gigatoken_counts_alike(tmp_path: Path, tokenizer: TokenizerSpec, record_format: Format) -> None:
    path = tmp_path / ("a.parquet" if record_format == "parquet" else "a.arecord")
    check = check_of(write_documents(path, record_format, ["a", "bcdef", "ö"]), 8, 3, tokenizer, format=record_format)
    assert shard_problems(dataclasses.replace(check, engine="gigatoken")) == []
    more = dataclasses.replace(check, engine="gigatoken", tokens=9)
    assert shard_problems(more) == [f"{path}: 8 tokens, not 9"]


def test_what_will_probably_encode(tmp_path: Path, tokenizer: TokenizerSpec) -> None:
    """The time of a job is estimated by it."""
    path = write_documents(tmp_path / "a.arecord", "text", ["a"])
    unfit = write_tokenizer(tmp_path / "tokenizer.json", normalizer={"type": "Lowercase"})
    unknown = dataclasses.replace(tokenizer, sha256="cd")
    for record_format in ("text", "parquet"):
        check = check_of(path, 1, 1, tokenizer, format=record_format, engine="auto")
        assert check.expected_engine() == "gigatoken"
        assert dataclasses.replace(check, engine="tokenizers").expected_engine() == "tokenizers"
        assert dataclasses.replace(check, tokenizer=unfit).expected_engine() == "tokenizers"
        assert dataclasses.replace(check, tokenizer=unknown).expected_engine() is None
        assert dataclasses.replace(check, format="tokens").expected_engine() is None


def test_problems_are_told_together_and_in_order() -> None:
    raise_problems(iter(()))
    with pytest.raises(BroetchenError) as caught:
        raise_problems(iter(["b: 2", "a: 10", "b: 1"]))
    assert str(caught.value) == "a: 10\nb: 1\nb: 2"


def build_dataset(folder: Path, record_format: str) -> Path:
    """A dataset of five train shards and one of eval."""
    documents = [[f"Satz {group}, {row} und noch einer mehr." for row in range(20)] for group in range(12)]
    write_parquet(folder / "a" / "0.parquet", documents)
    content = {
        "name": "verified",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "records": {"format": record_format, "max_tokens": 16, "add_eos": record_format == "tokens"},
        "shards": {"target_size": 500},
        "datasets": {"a": {"source": "a/*.parquet", "tokens": 900, "eval_tokens": 60}},
    }
    (folder / "mix.yaml").write_text(yaml.safe_dump(content))
    build(load_config(str(folder / "mix.yaml")), str(folder / "out"), quiet=True)
    return folder / "out"


def write_output(folder: Path, names: Sequence[str] = ("a",), record_format: Format = "tokens") -> dict[str, Manifest]:
    """Datasets without a build, with their manifests beside them."""
    manifests = {name: write_dataset(folder / name, record_format) for name in names}
    for name, manifest in manifests.items():
        write_manifest(str(folder / name), manifest)
    return manifests


def problems_of(output: Path, **options: Any) -> list[str]:
    with pytest.raises(BroetchenError) as caught:
        verify(str(output), **options)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("record_format", ["tokens", "text"])
def test_built_datasets_are_sound(tmp_path: Path, record_format: str) -> None:
    output = build_dataset(tmp_path, record_format)
    (folder,) = verify(str(output))
    assert folder == str(output / "a")
    assert list(verify(f"{folder}/")) == [folder]


def test_all_that_is_wrong_with_all_datasets_is_told_at_once(tmp_path: Path) -> None:
    manifests = write_output(tmp_path, ["a", "b", "sound"])
    write_manifest(str(tmp_path / "b"), changed(manifests["b"], {"config.dataset.tokens": 6}))
    shard = tmp_path / "a" / "train-00001-of-00002.arecord"
    shard.rename(tmp_path / "a" / "train-00002-of-00003.arecord")
    first = write_documents(tmp_path / "a" / "train-00000-of-00002.arecord", "tokens", ["ab", "de"])
    assert problems_of(tmp_path) == [
        f"{first}: 4 tokens, not 3",
        f"{first}: sha256 {of_file(first)[1]}, not {manifests['a'].splits['train'].shards[0].sha256}",
        f"{shard}: missing",
        f"{tmp_path}/a/train-00002-of-00003.arecord: not in the manifest",
        f"{tmp_path}/b{budgets_line({'train': 5, 'eval': 3}, {'train': 6, 'eval': 3})}",
    ]


def test_the_engine_that_was_asked_for_verifies(tmp_path: Path) -> None:
    manifest = write_output(tmp_path, record_format="text")["a"]
    unfit = write_tokenizer(tmp_path / "tokenizer.json", normalizer={"type": "Lowercase"})
    write_manifest(str(tmp_path / "a"), changed(manifest, {"tokenizer.sha256": unfit.sha256}))
    assert list(verify(str(tmp_path), engine="tokenizers")) == [f"{tmp_path}/a"]
    for line in problems_of(tmp_path, engine="gigatoken"):
        assert ".arecord: cannot be read after record 0: gigatoken " in line


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    write_output(tmp_path)
    path = tmp_path / "a" / "manifest.json"
    content = path.read_text()
    for damaged in (content[: len(content) // 2], "[]", content.replace('"tokens"', '"tockens"')):
        path.write_text(damaged)
        (line,) = problems_of(tmp_path)
        assert line.startswith(f"{path}: not a manifest that this version reads (")


def test_a_manifest_whose_config_lacks_something_is_named(tmp_path: Path) -> None:
    write_output(tmp_path)
    path = tmp_path / "a" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    del manifest["config"]["records"]
    path.write_text(json.dumps(manifest))
    (line,) = problems_of(tmp_path)
    assert line.startswith(f"{path}: not a manifest that this version reads (config: ")


def test_no_dataset_at_all(tmp_path: Path) -> None:
    assert problems_of(tmp_path) == [
        f"{tmp_path}: no finished dataset here (no manifest.json in it or one folder below); build it first"
    ]


def test_the_command_prints_a_line_for_each_problem(tmp_path: Path) -> None:
    write_output(tmp_path)
    (tmp_path / "a" / "eval-00000-of-00001.arecord").unlink()
    (tmp_path / "a" / "train-00001-of-00002.arecord").write_bytes(b"")
    result = run_command("verify", tmp_path, "--direct_running_mode=multi_threading")
    assert (result.returncode, result.stdout) == (1, "")
    assert "\nbroetchen: " in result.stderr
    assert "Traceback" not in result.stderr
    assert f"{tmp_path}/a/eval-00000-of-00001.arecord: missing\n" in result.stderr
    assert f"{tmp_path}/a/train-00001-of-00002.arecord: 0 bytes, not {SHARD_BYTES:,}\n" in result.stderr
