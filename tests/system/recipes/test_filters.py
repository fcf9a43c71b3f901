"""Filtered builds, end to end: a plain loop of pyarrow and `tokenizers` over the rows that pass gives the same ids."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from beam_pipelines.config.mix import MixConfig, load_config
from beam_pipelines.jobs.build import build
from beam_pipelines.jobs.count import count
from beam_pipelines.jobs.plan import plan
from beam_pipelines.jobs.verify import AgainstSource, verify
from tests.support.command import run_command
from tests.support.corpora import SAMPLES, TOKENIZER, reference_ids
from tests.support.examples import at_most
from tests.support.reading import read_ids, read_texts
from transforms.dataset.manifest import Manifest, read_manifest
from transforms.errors import BroetchenError

WORDS = ["Brötchen", "und", " the ", "12", "\n", "straße", "日本", "x" * 40]
SCHEMA = pa.schema({"id": pa.string(), "text": pa.string(), "score": pa.float64(), "cut": pa.bool_()})


def config_of(folder: Path, dataset: dict[str, Any], **others: Any) -> MixConfig:
    content = {
        "name": "test",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "records": {"max_tokens": 8, "add_eos": True},
        "shards": {"target_size": 200},
        "datasets": {"d": {"source": "d/*.parquet", **dataset}},
    }
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(content | others, allow_unicode=True))
    return load_config(str(path))


def write(folder: Path, files: Sequence[Sequence[Sequence[dict[str, Any]]]]) -> None:
    """Writes a file for each list of row groups."""
    (folder / "d").mkdir(exist_ok=True)
    for number, groups in enumerate(files):
        with pq.ParquetWriter(folder / "d" / f"{number}.parquet", SCHEMA) as writer:
            for rows in groups:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA), row_group_size=max(1, len(rows)))


def documents(folder: Path, filters: Any = None, excluded: Sequence[str] = ()) -> list[str]:
    """The documents that pass, by pyarrow's own reader."""
    found = []
    for path in sorted((folder / "d").glob("*.parquet")):
        table = pq.read_table(path, filters=filters)
        found += [row["text"] for row in table.to_pylist() if row["text"] and row["id"] not in excluded]
    return found


def manifest_of(output: Path) -> Manifest:
    manifest = read_manifest(str(output / "d"))
    assert manifest is not None
    return manifest


texts = st.lists(st.sampled_from(WORDS), max_size=20).map("".join)
rows = st.fixed_dictionaries(
    {
        "id": st.none() | st.sampled_from(["a", "b", "c", "ü"]),
        "text": st.none() | texts,
        "score": st.none() | st.sampled_from([0.1, 0.5, 0.9, float("nan")]),
        "cut": st.none() | st.booleans(),
    }
)
corpora = st.lists(st.lists(st.lists(rows, max_size=5), min_size=1, max_size=4), min_size=1, max_size=3)
predicates = st.one_of(
    st.tuples(st.just("score"), st.sampled_from(["<", ">=", "!=", "=="]), st.sampled_from([0.1, 0.5, 0.9])),
    st.tuples(st.just("cut"), st.just("=="), st.booleans()),
    st.tuples(st.just("id"), st.sampled_from(["in", "not in"]), st.lists(st.sampled_from("abcü"), min_size=1)),
)
filters = st.none() | st.lists(st.lists(predicates, min_size=1, max_size=2), min_size=1, max_size=2)


@pytest.mark.slow
@at_most(25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(corpora, filters, st.sets(st.sampled_from("abcü")), st.data())
def test_any_filter_of_any_corpus_gives_the_first_ids_of_what_passes(
    tmp_path_factory: pytest.TempPathFactory,
    corpus: list[list[list[dict[str, Any]]]],
    wanted: list[list[tuple[str, str, Any]]] | None,
    excluded: set[str],
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    write(folder, corpus)
    (folder / "out-of-it.txt").write_text("\n".join(sorted(excluded)))
    ids = [token for document in reference_ids(documents(folder, wanted, sorted(excluded))) for token in document]
    dataset: dict[str, Any] = {"exclude": {"column": "id", "values": "out-of-it.txt"}}
    if wanted:
        dataset["filters"] = [[list(one) for one in every] for every in wanted]
    train = data.draw(st.integers(1, max(1, len(ids))), "train")
    evaluation = data.draw(st.integers(0, max(0, len(ids) - train)), "eval")
    config = config_of(folder, dataset | {"tokens": train, "eval_tokens": evaluation})
    if train > len(ids):
        with pytest.raises(BroetchenError):
            build(config, str(folder / "out"), quiet=True)
        return
    build(config, str(folder / "out"), quiet=True)
    for split, first, last in (("train", 0, train), ("eval", train, train + evaluation)):
        if first < last:
            records = read_ids(folder / "out" / "d", split)
            assert [token for record in records for token in record] == ids[first:last]
    verify(str(folder / "out"), against=AgainstSource(99, 0, str(folder / "mix.yaml")))
    (counted,) = count([config], load_config).values()
    assert counted.tokens + counted.documents == len(ids)  # a count adds no EOS
    manifest = manifest_of(folder / "out")
    read = [row for groups in corpus for rows in groups for row in rows][: manifest.rows]
    passing = documents(folder, wanted, sorted(excluded))
    assert manifest.filtered <= len(read)
    assert manifest.rows is not None
    assert manifest.rows - manifest.filtered - sum(manifest.skipped.values()) <= len(passing)


def scored_row(file: int, group: int, number: int) -> dict[str, Any]:
    text = f"Text {number} der Gruppe {group} in Datei {file}, und mehr davon."
    return {"id": f"{file}-{group}-{number}", "text": text, "score": group + number / 10, "cut": number % 2 == 0}


SCORED = [[[scored_row(file, group, number) for number in range(8)] for group in range(5)] for file in range(2)]


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    write(tmp_path, SCORED)
    return tmp_path


WANTED = [["score", ">=", 2], ["cut", "==", False]]


def test_a_filtered_build_is_that_of_a_source_with_those_rows_alone(scored: Path) -> None:
    config = config_of(scored, {"tokens": 260, "eval_tokens": 50, "filters": WANTED})
    build(config, str(scored / "out"), quiet=True)
    ids = [token for document in reference_ids(documents(scored, WANTED)) for token in document]
    built = [
        token for split in ("train", "eval") for record in read_ids(scored / "out" / "d", split) for token in record
    ]
    assert built == ids[:310]
    manifest = manifest_of(scored / "out")
    assert manifest.config["dataset"]["filters"] == WANTED
    assert manifest.skipped == {}
    assert manifest.filtered > 16  # the rows of two row groups, and half of each other
    (outlook,) = plan(config)
    assert outlook.available == len(ids)
    assert outlook.kept_share is not None
    assert 0 < outlook.kept_share < 0.5
    result = run_command("plan", scored / "mix.yaml")
    assert "of its text passes the filter" in " ".join(result.stdout.split())


def test_the_example_of_the_documents_runs(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs/config.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yaml\n(name: filtered\n.*?)^```$", text, re.M | re.S)
    (tmp_path / "mix.yaml").write_text(example.replace("../samples", str(SAMPLES)))
    table = pq.read_table(SAMPLES / "corpora" / "finepdfs_german").filter(pc.field("license") == "CC-BY-SA-3.0")
    taken_down = table["id"][1].as_py()
    (tmp_path / "takedown.txt").write_text(f"{taken_down}\n")
    result = run_command("build", tmp_path / "mix.yaml", "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "did not pass the filters" in result.stdout
    texts = table.filter(pc.field("id") != taken_down)["text"].to_pylist()
    ids = [token for document in reference_ids(texts, eos=None) for token in document]
    records = read_ids(tmp_path / "out" / "finepdfs_german", "train")
    assert [token for record in records for token in record] == ids[:50_000]


@pytest.mark.parametrize("written", ["text", "parquet"])
def test_text_is_filtered_as_ids_are(scored: Path, written: str) -> None:
    config = config_of(
        scored, {"tokens": 100, "filters": WANTED}, records={"format": written, "add_eos": False, "max_tokens": 8}
    )
    build(config, str(scored / "out"), quiet=True)
    passing = documents(scored, WANTED)
    if written == "parquet":
        found = pq.read_table([*sorted((scored / "out" / "d").glob("train-*"))]).to_pylist()
        assert [row["text"] for row in found][:-1] == passing[: len(found) - 1]
        assert all(row["score"] >= 2 and not row["cut"] for row in found)
    else:
        texts = read_texts(scored / "out" / "d", "train")
        assert texts[:-1] == passing[: len(texts) - 1]


def test_a_take_down_is_an_exact_rebuild_and_nothing_else(scored: Path) -> None:
    pq.write_table(pa.table({"id": ["0-0-0", "1-4-7", "elsewhere"]}), scored / "takedown.parquet")
    config = config_of(scored, {"tokens": 500, "exclude": {"column": "id", "values": "takedown.parquet"}})
    build(config, str(scored / "out"), quiet=True)
    ids = [token for one in reference_ids(documents(scored, None, ["0-0-0", "1-4-7"])) for token in one]
    assert [token for record in read_ids(scored / "out" / "d", "train") for token in record] == ids[:500]
    # Another list at the same path is another dataset, and is not taken for the one that is there.
    pq.write_table(pa.table({"id": ["0-0-1"]}), scored / "takedown.parquet")
    with pytest.raises(BroetchenError, match="holds a dataset of another config, source or tokenizer"):
        build(config_of(scored, config.datasets["d"].model_dump(mode="json", exclude_none=True)), str(scored / "out"))


def test_rows_that_do_not_pass_are_no_bad_rows(scored: Path) -> None:
    """`on_bad_rows: fail` does not fail for what is filtered out, and quarantine does not keep it."""
    bad = {"id": "x", "text": None, "score": 0.0, "cut": True}
    write(scored, [[[bad, bad | {"text": "gut", "score": 9.0}]]])
    (scored / "d" / "1.parquet").unlink()
    for on_bad_rows in ("fail", "quarantine"):
        config = config_of(scored, {"tokens": 2, "filters": [["score", ">", 1]], "on_bad_rows": on_bad_rows})
        build(config, str(scored / on_bad_rows), quiet=True)
        manifest = manifest_of(scored / on_bad_rows)
        assert (manifest.rows, manifest.filtered, manifest.skipped, manifest.quarantine) == (2, 1, {}, ())
    with pytest.raises(BroetchenError, match=r"row 0 .*is null"):
        build(config_of(scored, {"tokens": 2, "on_bad_rows": "fail"}), str(scored / "none"), quiet=True)


def test_a_build_with_another_budget_goes_on_with_what_was_filtered(scored: Path) -> None:
    """It ends with the bytes of a build that was not interrupted."""
    short = config_of(scored, {"tokens": 10_000, "filters": WANTED})
    with pytest.raises(BroetchenError, match=r"source is exhausted.*filter less"):
        build(short, str(scored / "out"), quiet=True)
    (work,) = (scored / "out" / "d" / ".broetchen").iterdir()
    begun = {path.name: path.stat().st_ino for path in work.glob("shard-*.arecord")}
    assert len(begun) > 3
    config = config_of(scored, {"tokens": 300, "filters": WANTED})
    build(config, str(scored / "out"), quiet=True)
    inodes = {path.stat().st_ino for path in (scored / "out" / "d").glob("*.arecord")}
    assert inodes & set(begun.values())
    shutil.move(scored / "out", scored / "first")
    build(config, str(scored / "out"), quiet=True)
    for path in (scored / "first").rglob("*"):
        if path.is_file():
            assert (scored / "out" / path.relative_to(scored / "first")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (
            {"filters": [["scor", ">", 1]]},
            'no column "scor", by which its rows are to be filtered; the file has id',
        ),
        ({"filters": [["score", ">", "1"]]}, 'column "score" is double, which cannot be compared as `> "1"`'),
        ({"filters": [["score", ">", 99]]}, "leave no document; check them"),
        ({"filters": [["cut", "==", True], ["cut", "==", False]]}, "leave no document; check them"),
        ({"exclude": {"column": "id", "values": "gone.txt"}}, "gone.txt"),
        ({"exclude": {"column": "nope", "values": "ids.txt"}}, 'no column "nope"'),
    ],
)
@pytest.mark.parametrize("command", ["plan", "build", "count", "vocab"])
def test_filters_that_cannot_be_applied_are_one_clear_error(
    scored: Path, command: str, dataset: dict[str, Any], said: str
) -> None:
    (scored / "ids.txt").write_text("a\n")
    config_of(scored, {"tokens": 100, **dataset})
    arguments = ["--output", str(scored / "out")] if command in ("build", "vocab") else []
    result = run_command(command, scored / "mix.yaml", *arguments)
    assert result.returncode in (1, 2)
    assert said in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr


def test_a_config_names_the_line_of_a_wrong_filter(tmp_path: Path) -> None:
    dataset = "  d:\n    tokens: 5\n    source: a\n    filters: [[a, like, b]]\n"
    (tmp_path / "mix.yaml").write_text(f"name: m\ntokenizer: {{path: t.json}}\ndatasets:\n{dataset}")
    result = run_command("plan", tmp_path / "mix.yaml")
    assert result.returncode == 2
    assert "mix.yaml:7: datasets.d.filters:" in result.stderr
    assert '"like" is no operator of filters' in result.stderr


def test_row_groups_that_hold_nothing_are_told_from_those_that_do(scored: Path) -> None:
    """In this order they stand before and behind the one that begins at the same token."""
    groups = [
        [scored_row(0, group, number) | {"score": float(group % 2)} for number in range(8)] for group in range(12)
    ]
    write(scored, [groups])
    (scored / "d" / "1.parquet").unlink()
    config = config_of(
        scored,
        {
            "tokens": 500,
            "eval_tokens": 50,
            "order": "shuffled",
            "filters": [["score", ">", 0.5]],
            "trace_columns": ["id"],
        },
        records={"max_tokens": 8, "trace": True},
    )
    build(config, str(scored / "out"), quiet=True)
    verify(str(scored / "out"), against=AgainstSource(99, 0, str(scored / "mix.yaml")))


def test_in_of_labels_with_nulls(scored: Path) -> None:
    """As pandas writes them: in 64-bit floats, of which the statistics of zeros say -0.0."""
    groups = [[scored_row(0, group, number) | {"score": float(group)} for number in range(8)] for group in range(3)]
    write(scored, [groups])
    (scored / "d" / "1.parquet").unlink()
    config = config_of(scored, {"tokens": 300, "filters": [["score", "in", [0, 2]]], "on_shortfall": "keep"})
    build(config, str(scored / "out"), quiet=True)
    ids = [token for one in reference_ids(documents(scored, [["score", "!=", 1]])) for token in one]
    assert [token for record in read_ids(scored / "out" / "d", "train") for token in record] == ids[:300]
    verify(str(scored / "out"), against=AgainstSource(99, 0, str(scored / "mix.yaml")))
