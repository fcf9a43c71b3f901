"""`broetchen count`: equal to `tokenizers`, for any engine, and any input."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import yaml
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.config.mix import MixConfig, load_config
from beam_pipelines.console.layout import OutputFormat, as_text
from beam_pipelines.jobs.build import build
from beam_pipelines.jobs.count import count
from beam_pipelines.tables.sources import print_counts
from tests.support.command import run_command
from tests.support.corpora import SAMPLES, TOKENIZER, documents_of, reference_ids, write_parquet
from transforms.counting.count_tokens import lay_out_parts
from transforms.counting.text_count import Lengths, SumTextCounts, TextCount, TextCountCoder
from transforms.dataset.manifest import read_manifest
from transforms.errors import BroetchenError, UsageError
from transforms.parquet.footer import RowGroup, SourceFile
from transforms.tokenizer.spec import Engine

DATASETS = sorted(path.name for path in (SAMPLES / "corpora").iterdir())
RUNNERS: dict[str, list[str]] = {
    "in memory": ["--runner=DirectRunner"],
    "threads": ["--direct_running_mode=multi_threading", "--direct_num_workers=2"],
    "processes": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
}

histograms = st.lists(st.integers(0, 50) | st.integers(0, 1 << 40), max_size=60)


def no_config(path: str) -> MixConfig:
    raise AssertionError(f"{path} is no config")


def expected(documents: Sequence[str], rows: int) -> TextCount:
    """The count of some documents by `tokenizers` alone."""
    lengths = np.array([len(ids) for ids in reference_ids(documents, eos=None)], np.int64)
    return TextCount.of(lengths, sum(len(text.encode()) for text in documents), rows - len(documents))


def write_config(folder: Path, **changes: object) -> Path:
    content = {
        "name": "test",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "total_tokens": 100,
        "records": {"max_tokens": 8, "add_eos": True},
        "shards": {"target_size": 200},
        "datasets": {"a": {"share": "100%", "source": f"{folder}/a/*.parquet"}},
    }
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


@pytest.fixture(scope="module")
def sample_counts() -> dict[str, TextCount]:
    counts = {}
    for name in DATASETS:
        documents = documents_of((SAMPLES / "corpora" / name).glob("*.parquet"))
        counts[name] = expected(documents, len(documents))
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("engine", ["tokenizers", "gigatoken"])
def test_samples_count_as_tokenizers_does(
    sample_counts: dict[str, TextCount], engine: Engine, runner: str, tmp_path: Path
) -> None:
    datasets = {name: {"share": "20%", "source": f"{SAMPLES}/corpora/{name}/*.parquet"} for name in DATASETS}
    config = str(write_config(tmp_path, datasets=datasets))
    assert count([config], load_config, engine=engine, beam_arguments=RUNNERS[runner]) == sample_counts


ROWS = ["Brötchen", None, "", "und Käse " * 30, "<|eos|> the end", "🙂\n", "a", None, "fi", "x"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two files of five row groups, with rows that hold no text."""
    rng = random.Random(4)
    for number in range(2):
        write_parquet(tmp_path / "a" / f"{number}.parquet", [rng.sample(ROWS, 6) for _ in range(5)])
    return tmp_path


def expected_of(folder: Path) -> TextCount:
    return expected(documents_of((folder / "a").glob("*.parquet")), 60)


def test_rows_without_text_are_left_out_and_counted(corpus: Path) -> None:
    found = count([str(write_config(corpus))], load_config)
    assert found == {"a": expected_of(corpus)}
    assert found["a"].skipped


def test_a_config_that_names_no_eos_token_can_be_counted(corpus: Path) -> None:
    config = str(write_config(corpus, tokenizer={"path": str(TOKENIZER)}))
    assert count([config], load_config) == {"a": expected_of(corpus)}


def test_parquet_files_are_counted_with_a_tokenizer(corpus: Path) -> None:
    pattern, single = f"{corpus}/a/*.parquet", f"{corpus}/a/0.parquet"
    found = count([pattern, single], no_config, tokenizer=str(TOKENIZER))
    assert list(found) == [pattern, single]
    assert found[pattern] == expected_of(corpus)
    assert found[single] == expected(documents_of([corpus / "a" / "0.parquet"]), 30)


def test_another_text_column(tmp_path: Path) -> None:
    write_parquet(tmp_path / "0.parquet", [["ein", "zwei"]], column="content")
    pattern = f"{tmp_path}/*.parquet"
    found = count([pattern], no_config, tokenizer=str(TOKENIZER), text_column="content")
    assert found[pattern] == expected(["ein", "zwei"], 2)


def test_what_comes_twice_gets_a_number(corpus: Path) -> None:
    config = str(write_config(corpus))
    assert list(count([config, config], load_config)) == ["a", "a (2)"]


def test_built_ids_are_read_again_and_the_rest_is_unknown(corpus: Path) -> None:
    dataset = {"tokens": 100, "eval_tokens": 20, "source": f"{corpus}/a/*.parquet"}
    build(load_config(str(write_config(corpus, datasets={"a": dataset}))), str(corpus / "out"), quiet=True)
    manifest = read_manifest(str(corpus / "out" / "a"))
    assert manifest is not None
    found = count([str(corpus / "out")], no_config)
    assert found == {
        f"a/{name}": TextCount(manifest.splits[name].documents, tokens, None, None, None, None)
        for name, tokens in (("train", 100), ("eval", 20))
    }
    assert found["a/train"].median is None
    assert count([str(corpus / "out" / "a")], no_config, datasets=["a"]) == found
    with pytest.raises(UsageError, match="no such dataset; it has a"):
        count([str(corpus / "out")], no_config, datasets=["b"])


@pytest.mark.slow
@pytest.mark.parametrize("record_format", ["text", "parquet"])
def test_built_texts_are_counted_as_texts(corpus: Path, record_format: str) -> None:
    config = load_config(str(write_config(corpus, records={"format": record_format})))
    build(config, str(corpus / "out"), quiet=True)
    documents = documents_of((corpus / "a").glob("*.parquet"))
    found = count([str(corpus / "out")], no_config)["a/train"]
    assert (found.tokens, found.skipped) == (100, None)
    whole = expected(documents[: found.documents - 1], 0)
    assert found.lengths is not None
    assert whole.lengths is not None
    # All but the last document are whole ones, and that one fills the budget.
    assert found.lengths == Lengths.sum([whole.lengths, Lengths.of(np.array([100 - whole.tokens]))])


def test_a_built_shard_that_was_exchanged_is_an_error(corpus: Path) -> None:
    config = load_config(str(write_config(corpus, total_tokens=250)))
    build(config, str(corpus / "out"), quiet=True)
    first, second, *_ = sorted((corpus / "out" / "a").glob("train-*.arecord"))
    first.write_bytes(second.read_bytes())
    with pytest.raises(BroetchenError, match=r"train-00000-of-.*its manifest says .* broetchen verify"):
        count([str(corpus / "out")], no_config)


@pytest.mark.slow
def test_sources_and_built_datasets_together(corpus: Path) -> None:
    config = write_config(corpus)
    build(load_config(str(config)), str(corpus / "out"), quiet=True)
    result = run_command("count", config, corpus / "out", "--format=json", "--output", corpus / "counts.json")
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)
    assert (corpus / "counts.json").read_text() == result.stdout
    assert [row["dataset"] for row in rows] == ["a", "a/train", "all"]
    assert [row["subtokens"] for row in rows] == [expected_of(corpus).tokens, 100, expected_of(corpus).tokens + 100]
    assert rows[0]["bytes"] == expected_of(corpus).text_bytes
    assert rows[1]["bytes"] is None
    assert rows[2]["median_tokens_per_document"] is None


@pytest.mark.parametrize(
    ("what", "options", "kind", "message"),
    [
        ("a/*.parquet", {}, UsageError, "name the tokenizer to count with by --tokenizer"),
        ("nothing/*.parquet", {"tokenizer": str(TOKENIZER)}, BroetchenError, "no file matches"),
        ("a/*.parquet", {"tokenizer": str(TOKENIZER), "text_column": "b"}, BroetchenError, "no column 'b'"),
        ("a/*.parquet", {"tokenizer": str(TOKENIZER), "datasets": ["a"]}, UsageError, "--dataset a: parquet files"),
        ("a/*.parquet", {"tokenizer": "nothing.json"}, UsageError, "there is no nothing.json"),
        ("nofs://a/*.parquet", {"tokenizer": str(TOKENIZER)}, UsageError, "no filesystem for nofs"),
        ("empty.parquet", {"tokenizer": str(TOKENIZER)}, BroetchenError, "column 'text' holds no text"),
        ("mix.yaml", {"tokenizer": str(TOKENIZER)}, UsageError, "--tokenizer is for parquet files"),
        ("mix.yaml", {"datasets": ["b"]}, UsageError, "no such dataset"),
        ("a", {}, BroetchenError, "no finished dataset here"),
    ],
)
def test_errors(corpus: Path, what: str, options: dict[str, Any], kind: type[BroetchenError], message: str) -> None:
    write_config(corpus)
    write_parquet(corpus / "empty.parquet", [[None, ""]])
    with pytest.raises(BroetchenError, match=re.escape(message)) as caught:
        count([what if "://" in what else f"{corpus}/{what}"], load_config, **options)
    assert caught.type is kind


def test_an_error_of_the_command_is_one_line(corpus: Path) -> None:
    result = run_command("count", corpus / "a" / "*.parquet")
    assert result.returncode == 2
    assert result.stderr.startswith("broetchen: ")
    assert len(result.stderr.splitlines()) == 1


def test_the_three_forms_say_the_same() -> None:
    counts = {"a[b]": TextCount.of(np.array([1, 2, 6]), 40, 2), "b/train": TextCount(3, 10, None, None, None, None)}

    def text(output_format: OutputFormat) -> str:
        return as_text(lambda console: print_counts(console, counts, output_format))

    rows = json.loads(text("json"))
    assert rows[0] == {
        "dataset": "a[b]",
        "subtokens": 9,
        "documents": 3,
        "bytes": 40,
        "bytes_per_token": 40 / 9,
        "tokens_per_document": 3.0,
        "median_tokens_per_document": 2.0,
        "p99_tokens_per_document": 5.92,
        "rows_left_out": 2,
        "rows_filtered": 0,
    }
    assert rows[2]["dataset"] == "all"
    assert (rows[2]["subtokens"], rows[2]["documents"], rows[2]["bytes"]) == (19, 6, None)
    from_csv = list(csv.DictReader(io.StringIO(text("csv"))))
    assert from_csv == [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]
    lines = [line.split() for line in text("table").splitlines()]
    assert ["a[b]", "9", "3", "40", "4.44", "3.00", "2.00", "5.92", "2", "0"] in lines
    assert ["b/train", "10", "3", "–", "–", "3.33", "–", "–", "–", "–"] in lines


@given(st.lists(histograms, max_size=6))
def test_merged_histograms_give_the_statistics_of_the_whole_list(parts: list[list[int]]) -> None:
    whole = [length for part in parts for length in part]
    found = TextCount.sum(TextCount.of(np.array(part, np.int64), 1, 2) for part in parts)
    assert (found.documents, found.tokens, found.text_bytes) == (len(whole), sum(whole), len(parts))
    assert found.lengths is not None
    assert np.repeat(found.lengths.lengths, found.lengths.counts).tolist() == sorted(whole)
    if whole:
        assert found.mean == pytest.approx(np.mean(whole), rel=1e-12)
        assert found.median == pytest.approx(np.median(whole), rel=1e-12)
        assert found.p99 == pytest.approx(np.percentile(whole, 99), rel=1e-12)
    else:
        assert (found.mean, found.median, found.p99, found.bytes_per_token) == (None, None, None, None)


@given(st.lists(histograms, min_size=3, max_size=3), st.integers(0, 100))
def test_adding_is_associative_and_commutative(parts: list[list[int]], percent: int) -> None:
    a, b, c = (TextCount.of(np.array(part, np.int64), len(part), 1) for part in parts)
    assert (a + b) + c == a + (b + c) == (c + a) + b == TextCount.sum([c, b, a])
    assert a + TextCount() == a
    combine = SumTextCounts()
    merged = combine.merge_accumulators([combine.add_input(combine.create_accumulator(), a), b, c])
    assert combine.extract_output(merged) == a + b + c
    total = (a + b + c).lengths
    assert total is not None
    everything = [length for part in parts for length in part]
    if everything:
        assert total.quantile(Fraction(percent, 100)) == pytest.approx(np.percentile(everything, percent), rel=1e-12)


def test_what_is_added_to_an_unknown_is_unknown() -> None:
    known, unknown = TextCount.of(np.array([3, 4]), 9, 0), TextCount(1, 5, None, None, None)
    assert known + unknown == TextCount(3, 12, None, None, None)


@given(histograms)
def test_counts_travel_as_they_are(lengths: list[int]) -> None:
    value = TextCount.of(np.array(lengths, np.int64), 7, 1)
    coder = TextCountCoder()
    assert coder.decode(coder.encode(value)) == value
    unknown = TextCount(1, 2, None, None, None)
    assert coder.decode(coder.encode(unknown)) == unknown


@pytest.mark.parametrize(
    "change",
    [
        {"documents": 3},
        {"tokens": 1},
        {"tokens": -7},
        {"text_bytes": 1.5},
        {"skipped": True},
        {"lengths": {"lengths": [4, 3], "counts": [1, 1]}},
        {"lengths": {"lengths": [7], "counts": [1, 1]}},
        {"lengths": {"lengths": ["7"], "counts": [2]}},
        {"lengths": [7]},
    ],
)
def test_counts_that_contradict_themselves_are_refused(change: dict[str, object]) -> None:
    plain = TextCount.of(np.array([3, 4]), 9, 0).to_plain()
    assert TextCount.from_plain(plain) == TextCount.of(np.array([3, 4]), 9, 0)
    with pytest.raises(ValueError, match=r"count of texts|histogram"):
        TextCount.from_plain(plain | change)


def test_the_combine_in_a_pipeline() -> None:
    parts = [("a", [1, 2]), ("b", [5]), ("a", [2, 9])]
    with TestPipeline() as pipeline:
        counts = (
            pipeline
            | beam.Create([(name, TextCount.of(np.array(lengths), 1, 0)) for name, lengths in parts])
            | beam.CombinePerKey(SumTextCounts())
            | beam.MapTuple(lambda name, total: (name, total.documents, total.tokens, total.median))
        )
        assert_that(counts, equal_to([("a", 4, 14, 2.0), ("b", 1, 5, 5.0)]))


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 20), st.data())
def test_parts_hold_all_row_groups_in_order_and_are_small(sizes: list[int], limit: int, data: st.DataObject) -> None:
    source = SourceFile("a", 1, "", None, tuple(RowGroup(1, size, size) for size in sizes))
    wanted = data.draw(st.lists(st.sampled_from(range(len(sizes))), unique=True).map(sorted)) if sizes else []
    parts = lay_out_parts(source, wanted, limit)
    assert [group for part in parts for group in part] == wanted
    assert all(len(part) == 1 or sum(sizes[group] for group in part) <= limit for part in parts)


@pytest.mark.slow
def test_asking_for_gigatoken_where_it_cannot_be_used(corpus: Path) -> None:
    plain = json.loads(TOKENIZER.read_text())
    plain["pre_tokenizer"] = {"type": "Whitespace"}
    (corpus / "tokenizer.json").write_text(json.dumps(plain))
    pattern = f"{corpus}/a/*.parquet"
    with pytest.raises(UsageError, match="--engine gigatoken cannot be used: gigatoken does not do the pre-tokenizer"):
        count([pattern], no_config, tokenizer=str(corpus / "tokenizer.json"), engine="gigatoken")
    assert count([pattern], no_config, tokenizer=str(corpus / "tokenizer.json"))[pattern].documents
