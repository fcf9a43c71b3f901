"""Plans of small datasets, to the number, and the facts that decide a fingerprint.

The tokenizer has a token for each byte, so that every count can be told beforehand.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
import yaml

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.specs import dataset_specs, load_config_tokenizer
from tests.support.corpora import write_parquet
from tests.support.small_tokenizers import byte_level
from transforms.arrayrecord.records import Format, RecordSpec
from transforms.coders import from_json, to_json
from transforms.dataset.manifest import OnBadRows
from transforms.encoding.recheck import probe_digest
from transforms.errors import BroetchenError, UsageError
from transforms.parquet.footer import RowGroup, SourceFile, SourceVersion, read_footer
from transforms.recipe import plan as plans
from transforms.recipe.blocks import Block, of_blocks
from transforms.recipe.plan import (
    DatasetPlan,
    PlanDatasets,
    PlanHead,
    PlanPart,
    byte_deciding_versions,
    check_versions,
    fingerprint,
    plan_dataset,
    read_source,
    split_plan,
    work_key,
)
from transforms.recipe.ratio import Ratio
from transforms.recipe.shard_plan import PlannedShard, ShardTask
from transforms.recipe.spec import DatasetSpec
from transforms.tokenizer.spec import Engine, TokenizerSpec

KIB = 1 << 10


def byte_tokenizer(folder: Path, **settings: Any) -> TokenizerSpec:
    """Writes a tokenizer with a token for each byte."""
    text = json.dumps(byte_level(**settings))
    path = folder / "tokenizer.json"
    path.write_text(text)
    return TokenizerSpec(str(path), hashlib.sha256(text.encode()).hexdigest(), None, None, special_tokens="text")


# Of text that is not compressed a shard takes as many bytes as its target size says.
TEXT: Mapping[str, Any] = {"records": RecordSpec("text", 8, bos_id=None, eos_id=None), "compression": "none"}


def spec_in(folder: Path, **changes: Any) -> DatasetSpec:
    values: dict[str, Any] = {
        "name": "bread",
        "mix": "bakery",
        "sources": (f"{folder}/*.parquet",),
        "source_roots": (),
        "text_column": "text",
        "order": "sequential",
        "seed": 0,
        "budgets": {"train": 10},
        "on_shortfall": "keep",
        "records": RecordSpec("tokens", 8, bos_id=None, eos_id=None),
        "target_size": 1 << 20,
        "group_size": 1,
        "compression": "zstd",
        "engine": "tokenizers",
        "output": f"{folder}/out",
        "config": {},
    }
    values |= changes
    return DatasetSpec(tokenizer=values.pop("tokenizer", None) or byte_tokenizer(folder), **values)


def written(path: Path, row_groups: Sequence[Sequence[str | None]], column: str = "text") -> SourceFile:
    """Writes a file, and reads its footer."""
    write_parquet(path, row_groups, column=column)
    return read_footer(str(path), path.stat().st_size, column)


def text_bytes(file: SourceFile, group: int) -> int:
    """The bytes of the second column before compression."""
    size: int = pq.read_metadata(file.path).row_group(group).column(1).total_uncompressed_size
    return size


def stored_bytes(file: SourceFile, group: int) -> int:
    size: int = pq.read_metadata(file.path).row_group(group).column(1).total_compressed_size
    return size


def test_a_plan_has_the_files_by_name_their_shards_and_the_ratio_of_their_text(tmp_path: Path) -> None:
    first = written(tmp_path / "a.parquet", [["abc", None, "de"], ["fg"]])
    second = written(tmp_path / "b.parquet", [["h", "ijkl"]])
    sizes = [text_bytes(first, 0), text_bytes(first, 1), text_bytes(second, 0)]
    stored = [stored_bytes(first, 0), stored_bytes(first, 1), stored_bytes(second, 0)]
    spec = spec_in(tmp_path, **TEXT, target_size=sizes[0] + sizes[1])
    key = work_key(spec, [first, second])
    plan = plan_dataset(spec, iter([second, first]))
    # It is small, so that all of it is sampled.
    assert plan.ratio.tokens(sum(sizes)) == (12, 0)
    assert plan == DatasetPlan(
        dataset="bread",
        files=(first, second),
        shards=(
            PlannedShard(0, ((0, 0), (0, 1)), 4, sizes[0] + sizes[1], stored[0] + stored[1]),
            PlannedShard(1, ((1, 0),), 2, sizes[2], stored[2]),
        ),
        ratio=plan.ratio,
        engine="tokenizers",
        versions=byte_deciding_versions(spec),
        probe=probe_digest(spec.tokenizer, "tokenizers"),
        fingerprint=fingerprint(spec, [first, second]),
        work_folder=f"{tmp_path}/out/bread/.broetchen/{key[:16]}",
    )


def test_a_shuffled_plan_begins_where_the_seed_says(tmp_path: Path) -> None:
    files = [
        written(tmp_path / "a.parquet", [["a"], ["bb"], ["ccc"]]),
        written(tmp_path / "b.parquet", []),
        written(tmp_path / "c.parquet", [["dddd"], ["eeeee"]]),
    ]
    spec = spec_in(tmp_path, **TEXT, target_size=1, order="shuffled", seed=7, budgets={"train": 100})
    plan = plan_dataset(spec, files)
    # The order that test_shard_plan.py has from a shell.
    assert [shard.row_groups for shard in plan.shards] == [((2, 1),), ((2, 0),), ((0, 1),), ((0, 2),), ((0, 0),)]
    # And so do the parts of its sample.
    in_order = [(5, files[2], 1), (4, files[2], 0), (2, files[0], 1), (3, files[0], 2), (1, files[0], 0)]
    assert [size for size, _ in plan.ratio.steps] == [text_bytes(file, group) for _, file, group in in_order]
    assert [round(size * ratio) for size, ratio in plan.ratio.steps] == [tokens for tokens, _, _ in in_order]


@pytest.mark.parametrize(("bos_id", "eos_id", "added"), [(None, None, 0), (0, None, 3), (None, 0, 3), (1, 2, 6)])
def test_bos_and_eos_of_each_document_are_expected_tokens(
    tmp_path: Path, bos_id: int | None, eos_id: int | None, added: int
) -> None:
    file = written(tmp_path / "a.parquet", [["abc", "de", "f"]])
    plan = plan_dataset(spec_in(tmp_path, records=RecordSpec("tokens", 8, bos_id, eos_id)), [file])
    assert plan.ratio.tokens_per_byte == pytest.approx((6 + added) / text_bytes(file, 0))


def test_a_sample_without_a_token_expects_one(tmp_path: Path) -> None:
    """Else no number of shards would ever be enough."""
    nothing = {"type": "Replace", "pattern": {"String": "a"}, "content": ""}
    file = written(tmp_path / "a.parquet", [["aaa"]])
    plan = plan_dataset(spec_in(tmp_path, tokenizer=byte_tokenizer(tmp_path, normalizer=nothing)), [file])
    assert plan.ratio.tokens_per_byte == 1 / text_bytes(file, 0)


@pytest.mark.parametrize(
    ("wanted", "unfit", "chosen"),
    [("auto", False, "gigatoken"), ("tokenizers", False, "tokenizers"), ("auto", True, "tokenizers")],
)
def test_the_engine_is_the_one_asked_for_or_the_fast_one_where_it_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wanted: Engine, unfit: bool, chosen: str
) -> None:
    tokenizer = byte_tokenizer(tmp_path, pre_tokenizer=None) if unfit else byte_tokenizer(tmp_path)
    file = written(tmp_path / "a.parquet", [["abc"]])
    plan = plan_dataset(spec_in(tmp_path, tokenizer=tokenizer, engine=wanted), [file])
    assert plan.engine == chosen
    said = "needs a pre-tokenizer, and this tokenizer has none"
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "transforms.recipe.plan",
            "WARNING",
            f"dataset bread: encoding with tokenizers, which is slower, since gigatoken {said}",
        )
        for _ in range(unfit)
    ]


def test_a_plan_says_what_share_of_the_text_the_reference_encodes(tmp_path: Path) -> None:
    texts = [f"{'word ' * 40}\U00018dc3{' word' * 40}" for _ in range(20)] + ["word " * 1000]
    file = written(tmp_path / "a.parquet", [texts])
    tokenizer = byte_tokenizer(tmp_path)
    plan = plan_dataset(spec_in(tmp_path, tokenizer=tokenizer, engine="auto"), [file])
    assert plan.engine == "gigatoken"
    assert 0.005 < plan.reference_share < 0.03
    assert plan_dataset(spec_in(tmp_path, tokenizer=tokenizer, engine="tokenizers"), [file]).reference_share == 0


def test_a_plan_says_what_share_of_the_text_cannot_be_cut(tmp_path: Path) -> None:
    texts = ["我们今天去山上。" * 20_000, "words and words " * 30_000, "我们" * 50]
    file = written(tmp_path / "a.parquet", [texts])
    plan = plan_dataset(spec_in(tmp_path, tokenizer=byte_tokenizer(tmp_path)), [file])
    assert 0.45 < plan.uncut_share < 0.55
    sizes = [len(text.encode()) for text in texts]
    assert sizes[0] / sum(sizes) == pytest.approx(0.5, abs=0.01)


def test_an_engine_that_was_asked_for_by_name_and_cannot_encode_is_an_error_of_the_dataset(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = written(tmp_path / "a.parquet", [["abc"]])
    spec = spec_in(tmp_path, tokenizer=byte_tokenizer(tmp_path, pre_tokenizer=None), engine="gigatoken")
    with pytest.raises(UsageError, match=r"^dataset bread: --engine gigatoken cannot be used: gigatoken needs a pre-"):
        plan_dataset(spec, [file])
    # Nor is anything else said: the sample was to be encoded by tokenizers.
    assert not caplog.records


def test_a_task_names_its_row_groups_by_path_and_what_they_were() -> None:
    a0, a1, b0 = RowGroup(1, 10, 5), RowGroup(2, 20, 6), RowGroup(3, 30, 7)
    versions = {"tokenizers": "1.0", "array_record": "2.0"}
    plan = DatasetPlan(
        dataset="bread",
        files=(
            SourceFile("a.parquet", 100, "", None, (a0, a1), modified=7),
            SourceFile("gs://b/b.parquet", 200, "", "crc", (b0,), generation=8),
        ),
        shards=(PlannedShard(0, ((0, 0),), 1, 10, 5), PlannedShard(1, ((1, 0), (0, 1)), 5, 50, 13)),
        ratio=Ratio(0.5),
        engine="gigatoken",
        versions=versions,
        probe="0123",
        fingerprint="f" * 64,
        work_folder="out/bread/.broetchen/ffff",
    )
    expected = ShardTask(
        dataset="bread",
        work_folder="out/bread/.broetchen/ffff",
        fingerprint="f" * 64,
        engine="gigatoken",
        versions=versions,
        probe="0123",
        ordinal=1,
        row_groups=(("gs://b/b.parquet", 0), ("a.parquet", 1)),
        planned=((SourceVersion(200, "crc", generation=8), b0), (SourceVersion(100, modified=7), a1)),
        rows=5,
        text_bytes=50,
        stop_after=17,
    )
    assert plan.task(1, 17) == expected
    assert plan.task(1, None) == dataclasses.replace(expected, stop_after=None)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"size": 101}, False),
        ({"checksum": "other"}, False),
        ({"modified": 8}, False),
        # Another generation of the same bytes, as after a copy; it is read all the same only by its number.
        ({"generation": 9}, True),
    ],
)
def test_a_task_tells_other_versions_of_its_files_from_those_of_an_earlier_run(
    changes: Mapping[str, Any], same: bool
) -> None:
    group = RowGroup(1, 10, 5)
    version = SourceVersion(100, "crc", generation=7, modified=7)

    def task(*planned: SourceVersion) -> ShardTask:
        return ShardTask(
            dataset="bread",
            work_folder="",
            fingerprint="",
            engine="gigatoken",
            versions={},
            probe="",
            ordinal=0,
            row_groups=tuple(("a.parquet", number) for number in range(len(planned))),
            planned=tuple((one, group) for one in planned),
            rows=1,
            text_bytes=10,
            stop_after=None,
        )

    changed = dataclasses.replace(version, **changes)
    assert (task(version, changed).source == task(version, version).source) == same
    assert (task(changed, version).source == task(version, changed).source) == same


def test_a_source_without_text_is_an_error_of_the_dataset(tmp_path: Path) -> None:
    file = written(tmp_path / "a.parquet", [[None], [""]])
    with pytest.raises(BroetchenError, match=r"^dataset bread: column 'text' holds no text in any of its files$"):
        plan_dataset(spec_in(tmp_path), [file])


def row_groups_of(plan: DatasetPlan) -> list[str]:
    tasks = [plan.task(shard.ordinal, None) for shard in plan.shards]
    return [f"{path}:{group}" for task in tasks for path, group in task.row_groups]


def print_planned(element: tuple[str, PlanHead], parts: Mapping[Block, Sequence[PlanPart]]) -> None:
    name, head = element
    print(name, head.plan.dataset, *row_groups_of(head.whole(of_blocks(name, parts))))


@pytest.mark.parametrize("most", [1, 2, 3, 1000])
def test_a_plan_travels_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    for name, groups in (("1", [["a"], ["bb"]]), ("2", [["ccc"]]), ("3", [["d"], ["e"], ["f"]])):
        written(tmp_path / f"{name}.parquet", groups)
    spec = spec_in(tmp_path, **TEXT, target_size=1, tokenizer=byte_tokenizer(tmp_path))
    plan = plan_dataset(spec, read_source(spec))
    monkeypatch.setattr("transforms.recipe.plan.GROUPS_PER_BLOCK", most)
    head, parts = split_plan(plan)
    assert (head.plan.files, head.plan.shards) == ((), ())
    assert (len(parts), head.parts) == ({1: 9, 2: 9, 3: 9, 1000: 2}[most],) * 2
    carried = [from_json(PlanPart, to_json(part)) for part in parts]
    assert from_json(PlanHead, to_json(head)).whole(carried) == plan
    files = [sum(1 + len(file.row_groups) for file in part.files) for part in parts]
    shards = [sum(1 + len(shard.row_groups) for shard in part.shards) for part in parts]
    assert max(*files, *shards) <= max(most, 4)
    with pytest.raises(ValueError, match=f"{len(parts) - 1} parts of its plan came, of {len(parts)}"):
        head.whole(carried[:-1])


def test_datasets_are_planned_each_from_its_own_files_and_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rye, wheat = tmp_path / "rye", tmp_path / "wheat"
    written(rye / "1.parquet", [["a"], ["bb"]], "content")
    written(rye / "2.parquet", [["ccc"]], "content")
    written(wheat / "1.parquet", [["dddd", "e"]])
    tokenizer = byte_tokenizer(tmp_path)
    specs = [
        spec_in(rye, **TEXT, name="rye", text_column="content", target_size=1, tokenizer=tokenizer),
        spec_in(wheat, **TEXT, name="wheat", order="shuffled", tokenizer=tokenizer),
    ]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        found = pipeline | beam.Create([(spec.name, spec) for spec in specs]) | PlanDatasets()
        # Output of a step is here at once; Beam's own assertions take as long as the pipeline.
        _ = found.heads | beam.Map(print_planned, beam.pvalue.AsMultiMap(found.parts))
    assert sorted(capsys.readouterr().out.splitlines()) == [
        f"rye rye {rye}/1.parquet:0 {rye}/1.parquet:1 {rye}/2.parquet:0",
        f"wheat wheat {wheat}/1.parquet:0",
    ]


@pytest.mark.parametrize(
    ("record_format", "on_bad_rows", "libraries"),
    [
        ("tokens", "skip", ["tokenizers", "array_record"]),
        ("text", "fail", ["tokenizers", "array_record"]),
        ("parquet", "skip", ["tokenizers", "pyarrow"]),
        ("tokens", "quarantine", ["tokenizers", "pyarrow", "array_record"]),
        ("parquet", "quarantine", ["tokenizers", "pyarrow"]),
    ],
)
def test_versions_are_those_of_what_makes_the_ids_and_writes_the_files(
    tmp_path: Path, record_format: Format, on_bad_rows: OnBadRows, libraries: list[str]
) -> None:
    """They stand in the order of manifests."""
    installed = {
        "tokenizers": tokenizers.__version__,
        "pyarrow": pa.__version__,
        "array_record": importlib.metadata.version("array_record"),
    }
    spec = spec_in(tmp_path, records=RecordSpec(record_format, 8, None, None), on_bad_rows=on_bad_rows)
    found = byte_deciding_versions(spec)
    assert list(found.items()) == [(library, installed[library]) for library in libraries]
    traced = byte_deciding_versions(dataclasses.replace(spec, trace=True))
    assert traced.keys() == {*libraries, "pyarrow"}


VERSIONS = {"tokenizers": "0.23.3", "array_record": "0.8.6", "pyarrow": "25.0.1"}
# sha256sum of: {"config": {"dataset": {"tokens": 5}, "seed": 0}, "format": 2, "source": [["corpus/a.parquet", 1000,
# "aa", null], ["gs://bucket/b.parquet", 2000, "bb", "md5:1"]], "tokenizer": "cc", "versions": {"array_record": "0.8.6",
# "tokenizers": "0.23.3"}}
FINGERPRINT = "42cb0f4465855cd37d25b11b65bf2cd0077bf2a93ba4201fadf02c91ce81947d"
# The same of what is without "tokens": 5.
WORK_KEY = "7704441c640706462fb7cdd52c23d7196c05107724e4fcccee38917a478e9920"
SOURCE = [
    SourceFile("/mnt/disk/corpus/a.parquet", 1000, "aa", None, (RowGroup(1, 2, 3),)),
    SourceFile("gs://bucket/b.parquet", 2000, "bb", "md5:1", ()),
]


def fingerprinted(**changes: Any) -> DatasetSpec:
    values = {
        "config": {"seed": 0, "dataset": {"tokens": 5}},
        "source_roots": (("/mnt/disk/corpus/", "corpus/"),),
        "tokenizer": TokenizerSpec("a/tokenizer.json", "cc", None, None, "text"),
    }
    return spec_in(Path("somewhere"), **values | changes)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions as if these were installed."""
    versions = dict(VERSIONS)
    monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)
    return versions


@pytest.mark.usefixtures("installed")
def test_the_fingerprint_is_the_one_that_is_written_down() -> None:
    """Were it another, every dataset that is finished would be refused, and all unfinished work be left behind."""
    assert fingerprint(fingerprinted(), SOURCE) == FINGERPRINT, (
        "If FORMAT_VERSION was raised this is as it should be: write the new value down. Otherwise nobody can go on "
        "with a dataset that was begun before"
    )


@pytest.mark.usefixtures("installed")
def test_the_key_of_unfinished_work_is_the_one_that_is_written_down() -> None:
    """Were it another, all unfinished work would be left behind."""
    assert work_key(fingerprinted(), SOURCE) == WORK_KEY


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("changed", [{"tokens": 6}, {"eval_tokens": 7}, {"on_shortfall": "keep"}])
def test_unfinished_work_is_shared_by_builds_that_want_more_or_less_of_it(changed: Mapping[str, Any]) -> None:
    spec = fingerprinted(config={"seed": 0, "dataset": {"tokens": 5, **changed}})
    assert fingerprint(spec, SOURCE) != FINGERPRINT
    assert work_key(spec, SOURCE) == WORK_KEY


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"seed": 1, "dataset": {"tokens": 5}}},
        {"config": {"seed": 0, "tokens": 5, "dataset": {}}},
        {"config": {"seed": 0, "dataset": {"tokens": 5, "order": "shuffled"}}},
        {"tokenizer": TokenizerSpec("a/tokenizer.json", "dd", None, None, "text")},
        {"source_roots": (("/mnt/disk/corpus/", "other/"),)},
        {"records": RecordSpec("parquet", 8, None, None)},
        {"on_bad_rows": "quarantine"},
    ],
)
def test_the_key_of_unfinished_work_hangs_on_all_that_decides_the_bytes_of_a_shard(changes: Mapping[str, Any]) -> None:
    """Else a build would take up the work of another, and mix the two."""
    assert work_key(fingerprinted(**changes), SOURCE) != WORK_KEY


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"seed": 1, "dataset": {"tokens": 5}}},
        {"config": {"seed": 0, "dataset": {"tokens": 6}}},
        {"tokenizer": TokenizerSpec("a/tokenizer.json", "dd", None, None, "text")},
        {"source_roots": (("/mnt/disk/corpus/", "other/"),)},
        {"records": RecordSpec("parquet", 8, None, None)},
        {"on_bad_rows": "quarantine"},
    ],
)
def test_the_fingerprint_hangs_on_the_config_and_the_tokenizer(changes: Mapping[str, Any]) -> None:
    """Else a build would take up the work of another, and mix the two."""
    assert fingerprint(fingerprinted(**changes), SOURCE) != FINGERPRINT


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("file", [0, 1])
@pytest.mark.parametrize(
    "changes", [{"path": "gs://bucket/c.parquet"}, {"size": 1001}, {"footer_sha256": "ab"}, {"checksum": "md5:2"}]
)
def test_the_fingerprint_hangs_on_each_source_file(file: int, changes: Mapping[str, Any]) -> None:
    source = list(SOURCE)
    source[file] = dataclasses.replace(source[file], **changes)
    assert fingerprint(fingerprinted(), source) != FINGERPRINT
    assert work_key(fingerprinted(), source) != WORK_KEY


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("changes", [{"generation": 7}, {"modified": 7}])
def test_the_fingerprint_does_not_hang_on_when_a_file_was_written(changes: Mapping[str, Any]) -> None:
    """Else a copy of the source would be another; its text hashes tell where a file has changed in letters alone."""
    source = [dataclasses.replace(file, **changes) for file in SOURCE]
    assert fingerprint(fingerprinted(), source) == FINGERPRINT
    assert work_key(fingerprinted(), source) == WORK_KEY


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("source", [SOURCE[:1], SOURCE[::-1], [*SOURCE, SOURCE[1]]])
def test_the_fingerprint_hangs_on_which_files_there_are_and_on_their_order(source: Sequence[SourceFile]) -> None:
    assert fingerprint(fingerprinted(), source) != FINGERPRINT


def test_the_fingerprint_hangs_on_the_version_of_the_format(
    installed: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "FORMAT_VERSION", 0)
    assert fingerprint(fingerprinted(), SOURCE) != FINGERPRINT
    assert work_key(fingerprinted(), SOURCE) != WORK_KEY


@pytest.mark.parametrize("library", ["tokenizers", "array_record"])
def test_the_fingerprint_hangs_on_the_versions_that_decide(installed: dict[str, str], library: str) -> None:
    installed[library] = "99.0"
    assert fingerprint(fingerprinted(), SOURCE) != FINGERPRINT
    assert work_key(fingerprinted(), SOURCE) != WORK_KEY


@pytest.mark.parametrize("library", ["tokenizers", "array_record", "pyarrow"])
def test_a_worker_has_the_versions_with_which_the_build_was_planned(installed: dict[str, str], library: str) -> None:
    spec = fingerprinted(on_bad_rows="quarantine")
    planned = byte_deciding_versions(spec)
    check_versions(spec, planned)
    installed[library] = "99.0"
    with pytest.raises(BroetchenError) as caught:
        check_versions(spec, planned)
    assert str(caught.value) == (
        f"dataset bread: this worker has {library} 99.0, and the build was planned with {VERSIONS[library]}; install "
        "the same versions on all machines, and run it again"
    )


def test_a_version_that_was_not_planned_is_another(installed: dict[str, str]) -> None:
    """A library that decides nothing may have any version."""
    spec = fingerprinted()
    installed["pyarrow"] = "99.0"
    check_versions(spec, byte_deciding_versions(spec))
    with pytest.raises(BroetchenError, match=r"has tokenizers 0\.23\.3, and the build was planned with none;"):
        check_versions(spec, {"array_record": VERSIONS["array_record"]})


def test_the_fingerprint_does_not_hang_on_libraries_that_do_not_decide(installed: dict[str, str]) -> None:
    installed["pyarrow"] = "99.0"
    assert fingerprint(fingerprinted(), SOURCE) == FINGERPRINT


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "changes",
    [
        {"engine": "gigatoken"},
        {"output": "gs://bucket/elsewhere"},
        {"overwrite": True},
        {"mix": "another", "name": "another"},
        {"on_bad_rows": "fail"},
        {"tokenizer": TokenizerSpec("gs://bucket/tokenizer.json", "cc", None, None, "text")},
        {"config": {"dataset": {"tokens": 5}, "seed": 0}},
    ],
)
def test_the_fingerprint_does_not_hang_on_what_leaves_the_bytes_alone(changes: Mapping[str, Any]) -> None:
    """Else a build could not be taken up with another engine, or its output be moved."""
    assert fingerprint(fingerprinted(**changes), SOURCE) == FINGERPRINT


@pytest.mark.usefixtures("installed")
def test_the_fingerprint_does_not_hang_on_where_the_source_is_mounted() -> None:
    moved = dataclasses.replace(SOURCE[0], path="/data/corpus/a.parquet")
    spec = fingerprinted(source_roots=(("/data/corpus/", "corpus/"),))
    assert fingerprint(spec, [moved, SOURCE[1]]) == FINGERPRINT


def test_the_fingerprint_of_a_config_is_the_same_on_another_machine(tmp_path: Path) -> None:
    """One that has config, source and tokenizer in another folder, and builds elsewhere, as it likes."""

    def found(folder: Path, tokens: int, output: str, engine: Engine, *, overwrite: bool) -> str:
        config = {
            "name": "bakery",
            "tokenizer": {"path": "./tokenizer.json"},
            "datasets": {"bread": {"source": "corpus/*.parquet", "tokens": tokens}},
        }
        (folder / "mix.yaml").write_text(yaml.safe_dump(config))
        mix = load_config(folder / "mix.yaml")
        tokenizer = load_config_tokenizer(mix)
        (spec,) = dataset_specs(mix, ["bread"], tokenizer, output=output, engine=engine, overwrite=overwrite)
        path = folder / "corpus" / "a.parquet"
        return fingerprint(spec, [read_footer(str(path), path.stat().st_size, "text")])

    here, there = tmp_path / "here", tmp_path / "there"
    written(here / "corpus" / "a.parquet", [["abc"]])
    byte_tokenizer(here)
    shutil.copytree(here, there)
    first = found(here, 3, "out", "auto", overwrite=False)
    assert found(there, 3, "gs://bucket/out", "tokenizers", overwrite=True) == first
    assert found(there, 2, "out", "auto", overwrite=False) != first
