"""Traces: the part of the source's documents that each record holds, exactly, wherever splits are cut."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from beam_pipelines.jobs.build import build
from beam_pipelines.jobs.verify import verify
from tests.support.corpora import BOS, EOS, reference_ids, write_parquet
from tests.support.examples import at_most
from tests.support.small_builds import EOS as SMALL_EOS
from tests.support.small_builds import SmallBuild, small_build, small_ids
from tests.system.builds.test_build import draw_mix, make_config, manifest_of, mixes, tree
from tests.transforms.building.conftest import MakeBuild
from transforms.arrayrecord.records import Format, holds_ids, record_bounds
from transforms.building import trace as traces
from transforms.building.publish import publish_shard
from transforms.building.trace import TraceFile, TraceWriter, document_parts, row_bytes
from transforms.dataset.reader import ShardReader
from transforms.dataset.trace import trace_name
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.parquet.columns import encode_schema
from transforms.texts import to_texts, unwanted_rows

FORMATS = get_args(Format)
rows = st.lists(st.sampled_from(["ab", "abab", "c", "🙂hi", " efgab", "xyz" * 4, "d" * 9]) | st.none(), max_size=5)


@given(st.lists(st.integers(0, 40), max_size=9), st.integers(1, 12))
def test_the_parts_of_documents_are_those_that_are_written(lengths: list[int], max_tokens: int) -> None:
    documents, first, last = document_parts(np.array(lengths, np.int64), max_tokens)
    offsets = np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))])
    assert np.append(offsets[documents] + first, offsets[-1]).tolist() == record_bounds(offsets, max_tokens).tolist()
    assert (offsets[documents] + last).tolist() == record_bounds(offsets, max_tokens)[1:].tolist()


def check_shard(folder: Path, shard: str, source: Mapping[str, Sequence[Sequence[str | None]]], encode: Any) -> int:
    """Holds a published shard against its trace and the source's documents; gives the number of its records.

    Args:
        source: row groups of each file, by the path that traces have.
        encode: the ids of a document, with those that a build adds; None for shards of text.
    """
    found = pq.read_table(folder / trace_name(shard)).to_pylist()
    formats: dict[str, Format] = {".parquet": "parquet", ".bin": "megatron"}
    record_format = formats.get(Path(shard).suffix, "tokens" if encode else "text")
    with ShardReader(str(folder / shard), record_format, "text") as reader:
        if encode:
            records: list[Any] = [ids.tolist() for ids in reader.ids()]
        else:
            records = [text for batch in reader.texts() for text in batch.to_pylist()]
    assert [row["record"] for row in found] == list(range(len(records)))
    for row, record in zip(found, records, strict=True):
        assert row["id"] == row["row"]
        document = source[row["file"]][row["row_group"]][row["row"]]
        whole = encode(document) if encode else document
        unit = "token" if encode else "character"
        assert record == whole[row[f"first_{unit}"] : row[f"last_{unit}"]]
    return len(records)


def publish_all(build: SmallBuild) -> list[str]:
    """Publishes all of it; gives the names of the shards."""
    published = [publish_shard(build.spec, task) for task in build.publish_plan().tasks]
    for shard in published:
        assert shard is not None
        assert shard.trace is not None
        assert storage.is_whole(f"{build.spec.folder}/{trace_name(shard.file)}", shard.trace)
    return [shard.file for shard in published if shard]


@at_most(10, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(rows, min_size=1, max_size=3), st.sampled_from(FORMATS), st.data())
def test_records_are_the_parts_of_documents_that_their_trace_tells(
    tmp_path_factory: pytest.TempPathFactory,
    shards: list[list[str | None]],
    record_format: Format,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("traced")
    row_groups: list[list[str | None]] = [*shards, ["ab"]]
    build = small_build(folder, record_format, row_groups, trace=True)
    budgets = {split: data.draw(st.integers(1, max(1, build.tokens)), split) for split in ("train", "eval", "test")}
    encode = (lambda text: [*small_ids(text), SMALL_EOS]) if holds_ids(record_format) else None
    source = {str(folder / "source.parquet"): row_groups}
    build = build.with_budgets(budgets, "keep")
    for shard in publish_all(build):
        check_shard(Path(build.spec.folder), shard, source, encode)
    shutil.rmtree(folder)


@pytest.mark.slow
@at_most(6, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(mixes, st.sampled_from(FORMATS), st.booleans(), st.data())
def test_any_corpora_are_traced_exactly(
    tmp_path_factory: pytest.TempPathFactory,
    mix: list[list[list[list[str | None]]]],
    record_format: Format,
    add_bos: bool,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    added: dict[str, Any] = {"bos": None, "eos": None}
    records: dict[str, Any] = {"format": record_format, "trace": True, "max_tokens": 3}
    if holds_ids(record_format):
        added = {"bos": BOS if add_bos else None, "eos": EOS}
        records |= {"add_bos": add_bos, "add_eos": True}
    budgets, _ = draw_mix(folder, mix, data, **added)
    if not budgets:
        return
    datasets = {name: {**budget, "trace_columns": ["id"]} for name, budget in budgets.items()}
    build(make_config(folder, datasets, records=records, on_shortfall="keep"), str(folder / "out"), quiet=True)
    verify(str(folder / "out"))
    for name in budgets:
        corpus = mix[int(name.removeprefix("dataset-"))]
        source = {f"{folder}/{name}/{file}.parquet": groups for file, groups in enumerate(corpus)}
        encode = (lambda text: reference_ids([text], **added)[0]) if holds_ids(record_format) else None
        for split in manifest_of(folder / "out" / name).splits.values():
            for shard in split.shards:
                assert check_shard(folder / "out" / name, shard.file, source, encode) == shard.records
    shutil.rmtree(folder)


KINDS: Mapping[str, tuple[pa.DataType, list[Any]]] = {
    "text": (pa.string(), ["a", "ö" * 30, None]),
    "class": (pa.dictionary(pa.int32(), pa.string()), ["x", "y", None]),
    "when": (pa.timestamp("s"), [datetime.datetime(2024, 1, 1), None]),
    "pages": (pa.list_(pa.int64()), [[1, 2, 3], [], None]),
    "about": (pa.struct({"a": pa.list_(pa.string()), "b": pa.float32()}), [{"a": ["z" * 9], "b": 0.5}, None]),
    "nothing": (pa.null(), [None]),
    "yes": (pa.bool_(), [True, False]),
}


@at_most(25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.lists(st.sampled_from(list(KINDS)), unique=True, max_size=4))
def test_the_bytes_of_a_trace_follow_from_its_rows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject, names: list[str]
) -> None:
    """However they come: in other parts, as slices, by other dictionaries, or read from another trace."""
    monkeypatch.setattr(traces, "_ROW_GROUP_BYTES", data.draw(st.integers(60, 400)))
    size = data.draw(st.integers(0, 30))
    own = {
        "file": pa.array(["a.parquet"] * size, pa.string()),
        "row_group": pa.array([1] * size, pa.int64()),
        "row": pa.array(range(size), pa.int64()),
        "first_token": pa.array([0] * size, pa.int64()),
        "last_token": pa.array([7] * size, pa.int64()),
    }
    chosen = {
        name: pa.array(data.draw(st.lists(st.sampled_from(values), min_size=size, max_size=size)), kind)
        for name, (kind, values) in ((name, KINDS[name]) for name in names)
    }
    table = pa.table(own | chosen)
    fields = [table.schema.field(name) for name in names]

    def written(name: str, parts: Sequence[pa.Table]) -> bytes:
        with TraceFile(str(tmp_path / name), fields, is_text=False) as trace:
            for part in parts:
                trace.write(part)
            assert trace.close().records == size
        return (tmp_path / name).read_bytes()

    at = sorted(data.draw(st.lists(st.integers(0, size), max_size=4)))
    parts = [table.slice(start, stop - start) for start, stop in zip([0, *at], [*at, size], strict=True)]
    content = written("a", [table])
    assert written("b", parts) == content
    assert written("c", [pq.read_table(tmp_path / "a")]) == content
    if size:
        read = pq.read_table(tmp_path / "a")
        assert read["record"].to_pylist() == list(range(size))
        assert {name: read[name].to_pylist() for name in names} == {name: table[name].to_pylist() for name in names}


def test_the_size_of_a_value_does_not_hang_on_what_is_beside_it() -> None:
    values = [{"a": ["xy", None], "b": 1.0}, None, {"a": [], "b": 2.0}, {"a": None, "b": None}]
    column = pa.array(values, KINDS["about"][0])
    assert row_bytes(column).tolist() == [4 + (4 + 4 + 2 + 4) + 4, 4 + 4 + 4, 4 + 4 + 4, 4 + 4 + 4]
    for start in range(4):
        assert row_bytes(column.slice(start, 2)).tolist() == row_bytes(column)[start : start + 2].tolist()


def test_a_large_trace_has_row_groups_that_are_not(tmp_path: Path) -> None:
    size = 200_000
    fields = [pa.field("url", pa.string())]
    table = pa.table(
        {
            "file": pa.repeat("a.parquet", size),
            "row_group": pa.repeat(0, size),
            "row": np.arange(size),
            "first_token": np.zeros(size, np.int64),
            "last_token": np.ones(size, np.int64),
            "url": pa.array([f"https://example.org/{number}" for number in range(size)]),
        }
    )
    with TraceFile(str(tmp_path / "a.parquet"), fields, is_text=False) as trace:
        for start in range(0, size, 1000):
            trace.write(table.slice(start, 1000))
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    assert metadata.num_rows == size
    assert 2 < metadata.num_row_groups < 10
    assert pq.read_table(tmp_path / "a.parquet")["record"].to_pylist() == list(range(size))


def test_rows_that_a_filter_leaves_out_count_and_are_in_no_trace(make_build: MakeBuild, tmp_path: Path) -> None:
    """Whether they were read, or all of their row group was not."""
    built = traced(make_build)
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    table = pa.table({"id": [7, 8, 9], "text": ["a", "b", "c"]}, schema)
    some = to_texts(table["text"].chunk(0), table.slice(1), wanted=pa.array([False, True, True]))
    with TraceWriter(built.spec, str(tmp_path / "a.parquet"), encode_schema(schema)) as trace:
        trace.write(("x", 0), np.empty(0, np.int64), unwanted_rows(5), np.empty(0, np.int64))
        trace.write(("x", 1), np.flatnonzero(some.kinds == 0), some, np.array([6, 2]))
        written = trace.close()
    assert written is not None
    found = pq.read_table(tmp_path / "a.parquet").drop_columns(["file"]).to_pylist()
    names = ("record", "row_group", "row", "first_token", "last_token", "id")
    assert [tuple(row.values()) for row in found] == [(0, 1, 1, 0, 4, 8), (1, 1, 1, 4, 6, 8), (2, 1, 2, 0, 2, 9)]
    assert tuple(found[0]) == names


TRACED = {"format": "tokens", "max_tokens": 4, "add_eos": True, "trace": True}


def traced(make_build: MakeBuild, written: Format = "tokens", **others: Any) -> Any:
    records = {"format": written, "max_tokens": 4, "add_eos": holds_ids(written), "trace": True}
    return make_build(written, records=records, dataset={"trace_columns": ["id"]}, **others)


@pytest.mark.parametrize("written", FORMATS)
def test_a_traced_dataset_has_the_shards_of_one_without(make_build: MakeBuild, tmp_path: Path, written: Format) -> None:
    plain, built = make_build(written, output=str(tmp_path / "plain")), traced(make_build, written)
    assert plain.plan.fingerprint != built.plan.fingerprint
    plain.run()
    manifest = built.run()
    found = tree(built.folder)
    assert {file: sha for file, sha in found.items() if not file.startswith(("_trace", "manifest"))} == {
        file: sha for file, sha in tree(plain.folder).items() if file != "manifest.json"
    }
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    assert {shard.trace.file: shard.trace.sha256 for shard in shards if shard.trace} == {
        file: sha for file, sha in found.items() if file.startswith("_trace/")
    }
    assert manifest.versions["pyarrow"] == pa.__version__
    assert "trace" not in plain.spec.config["records"]
    assert "trace_columns" not in plain.spec.config["dataset"]
    verify(built.spec.output, quick=True)


@pytest.mark.parametrize("written", FORMATS)
def test_a_trace_is_the_same_however_far_its_shard_was_read(
    make_build: MakeBuild, tmp_path: Path, written: Format
) -> None:
    """The larger build leaves longer shards, whose beginnings the smaller one takes."""
    fresh = traced(make_build, written, output=str(tmp_path / "fresh"))
    fresh.run()
    records = {"format": written, "max_tokens": 4, "add_eos": holds_ids(written), "trace": True}
    larger = make_build(written, records=records, dataset={"trace_columns": ["id"], "tokens": 22, "eval_tokens": 2})
    larger.publish()
    assert list((larger.folder / "_trace").iterdir())
    smaller = traced(make_build, written)
    smaller.run()
    assert tree(smaller.folder) == tree(fresh.folder)


@pytest.mark.parametrize("state", ["gone", "cut short"])
@pytest.mark.parametrize("published", [False, True])
def test_a_shard_is_tokenized_again_whose_trace_is_not_whole(
    make_build: MakeBuild, state: str, published: bool
) -> None:
    built = traced(make_build)
    if published:
        built.publish()
    count = built.tokenize()[0]
    trace = Path(built.work.trace(0, count.attempt))
    if published:
        assert not trace.exists()
        trace = built.folder / "_trace" / "train-00000-of-00003.parquet"
    assert built.work.finished(0) == count
    if state == "gone":
        trace.unlink()
    else:
        trace.write_bytes(trace.read_bytes()[:-1])
    assert built.work.finished(0) is None
    built.run()
    assert manifest_of(built.folder).splits["train"].tokens == 18
    verify(built.spec.output, quick=True)


def test_what_older_builds_left_among_the_traces_goes(make_build: MakeBuild) -> None:
    built = traced(make_build)
    built.publish()
    (built.folder / "_trace" / "train-00007-of-00009.parquet").write_bytes(b"old")
    built.run()
    assert not (built.folder / "_trace" / "train-00007-of-00009.parquet").exists()
    plain = make_build().changed(overwrite=True)
    plain.run()
    assert not (plain.folder / "_trace").exists()
    verify(plain.spec.output, quick=True)


def test_in_a_bucket(make_build: MakeBuild, gcs_prefix: str) -> None:
    """Published by a build of another budget first, and taken back."""
    built = traced(make_build)
    built.run()
    output = f"{gcs_prefix}/out"
    dataset = {"trace_columns": ["id"], "tokens": 22, "eval_tokens": 2}
    make_build(records=TRACED, dataset=dataset, output=output).publish()
    remote = traced(make_build, output=output)
    remote.run()
    found = {path.removeprefix(f"{remote.spec.folder}/"): path for path, _ in list_files(remote.spec.folder)}
    assert found.keys() == tree(built.folder).keys()
    for name, path in found.items():
        assert storage.read_bytes(path) == (built.folder / name).read_bytes()
    verify(output, quick=True)


def test_a_finished_dataset_whose_trace_is_cut_short_is_not_taken_for_finished(make_build: MakeBuild) -> None:
    built = traced(make_build)
    built.run()
    built.run()
    (built.folder / "_trace" / "train-00001-of-00003.parquet").write_bytes(b"")
    with pytest.raises(BroetchenError, match="gone or cut short"):
        built.run()
    built.changed(overwrite=True).run()
    verify(built.spec.output, quick=True)


def test_a_column_that_some_files_lack_is_null_and_one_that_all_lack_is_an_error(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a" / "0.parquet", [["one", "two"]])
    more = pa.table({"license": ["mit", None], "text": ["three", "four"]})
    pq.write_table(more, tmp_path / "a" / "1.parquet")
    records = {"max_tokens": 8, "trace": True}
    config = make_config(
        tmp_path, {"a": {"tokens": 4, "trace_columns": ["license", "id"]}}, records=records, on_shortfall="keep"
    )
    build(config, str(tmp_path / "out"), quiet=True)
    verify(str(tmp_path / "out"))
    paths = sorted((tmp_path / "out" / "a" / "_trace").iterdir())
    found = [row for path in paths for row in pq.read_table(path).to_pylist()]
    shown = list(dict.fromkeys((row["file"][-9:], row["row"], row["license"], row["id"]) for row in found))
    assert shown == [
        ("0.parquet", 0, None, 0),
        ("0.parquet", 1, None, 1),
        ("1.parquet", 0, "mit", None),
        ("1.parquet", 1, None, None),
    ]
    config = make_config(tmp_path, {"a": {"tokens": 4, "trace_columns": ["url"]}}, records=records)
    with pytest.raises(BroetchenError, match=r"0\.parquet: has no column 'url', and no other file .* there are id$"):
        build(config, str(tmp_path / "other"), quiet=True)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["id", "id"], "trace_columns names 'id' 2 times"),
        (["text"], "trace_columns names 'text', the text, which is in the records"),
        (["row"], "trace_columns names 'row', a name that a column of every trace has"),
    ],
)
def test_columns_that_no_trace_can_have_are_refused(make_build: MakeBuild, columns: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=f"dataset a: {said}"):
        make_build(records=TRACED, dataset={"trace_columns": columns})


def test_columns_without_a_trace_are_refused(make_build: MakeBuild) -> None:
    with pytest.raises(UsageError, match=r"datasets\.a\.trace_columns.*has no trace to go into"):
        make_build(dataset={"trace_columns": ["id"]})
