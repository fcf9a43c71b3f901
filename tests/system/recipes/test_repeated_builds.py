"""Builds of sources that are smaller than their budget: written once, eval exact, and the passes in the manifest."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from beam_pipelines.config.mix import MixConfig, load_config
from beam_pipelines.jobs.build import build
from beam_pipelines.jobs.verify import AgainstSource, verify
from tests.support.command import run_command
from tests.support.corpora import TOKENIZER, documents_of, reference_ids, write_parquet
from tests.support.examples import at_most
from tests.support.killed_builds import Moment, State, check_nothing_is_half_there, killed_at, tree, write_mix
from tests.support.reading import read_ids, read_texts
from transforms.dataset.manifest import Manifest, read_manifest
from transforms.errors import BroetchenError

WORDS = ["Brötchen", "und", "the", " ", "12", "\n", "straße", "日本", "🙂", "<|eos|>", "x" * 40]
ALL = AgainstSource(10**6, seed=0)

texts = st.lists(st.sampled_from(WORDS), max_size=30).map("".join)
row_groups = st.lists(st.lists(st.none() | texts, max_size=6), min_size=1, max_size=4)
mixes = st.lists(st.lists(row_groups, min_size=1, max_size=3), min_size=1, max_size=4)


def make_config(folder: Path, datasets: Mapping[str, Mapping[str, Any]], records: Mapping[str, Any]) -> MixConfig:
    content = {
        "name": "test",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "records": records,
        "shards": {"target_size": 200},
        "datasets": {name: {"source": f"{folder}/{name}/*.parquet", **dataset} for name, dataset in datasets.items()},
    }
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_config(str(path))


def manifest_of(folder: Path) -> Manifest:
    manifest = read_manifest(str(folder))
    assert manifest is not None
    return manifest


def stream_of(documents: Sequence[str], *, eos: bool = True) -> list[int]:
    ids = reference_ids(documents) if eos else reference_ids(documents, eos=None)
    return [token for document in ids for token in document]


def draw_mix(
    folder: Path, mix: Sequence[Sequence[Sequence[Sequence[str | None]]]], data: st.DataObject, *, eos: bool
) -> dict[str, dict[str, Any]]:
    """Writes a dataset for each corpus, with budgets that take more than it holds, or just as much."""
    datasets = {}
    for number, files in enumerate(mix):
        folder_of_it = folder / f"d{number}"
        for file, groups in enumerate(files):
            write_parquet(folder_of_it / f"{file}.parquet", groups)
        total = len(stream_of(documents_of(folder_of_it.glob("*.parquet")), eos=eos))
        if total < 2:
            continue
        held_out = data.draw(st.integers(0, total - 1), "eval")
        passes = data.draw(st.sampled_from([1.0, 1.5, 2.0, 4.0, 7.25]), "passes")
        datasets[f"d{number}"] = {
            "tokens": math.floor((total - held_out) * passes),
            "eval_tokens": held_out,
            "max_repeats": passes,
        }
    return datasets


@pytest.mark.slow
@at_most(8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(mixes, st.data())
def test_any_small_sources_give_all_of_their_ids_once(
    tmp_path_factory: pytest.TempPathFactory, mix: list[list[list[list[str | None]]]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("ids")
    datasets = draw_mix(folder, mix, data, eos=True)
    if not datasets:
        return
    build(make_config(folder, datasets, {"max_tokens": 8, "add_eos": True}), str(folder / "out"), quiet=True)
    for name, dataset in datasets.items():
        stream = stream_of(documents_of((folder / name).glob("*.parquet")))
        split = len(stream) - dataset["eval_tokens"]
        trained, held_out = (
            [t for r in read_ids(folder / "out" / name, part) for t in r] for part in ("train", "eval")
        )
        assert (trained, held_out) == (stream[:split], stream[split:])
        entry = manifest_of(folder / "out" / name).splits["train"]
        assert (entry.budget, entry.tokens, entry.missing) == (dataset["tokens"], split, 0)
        assert entry.passes == (None if dataset["tokens"] == split else dataset["tokens"] / split)
    verify(str(folder / "out"), against=ALL)
    shutil.rmtree(folder)


@pytest.mark.slow
@at_most(6, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(mixes, st.sampled_from(["text", "parquet"]), st.data())
def test_any_small_sources_give_all_of_their_text_once(
    tmp_path_factory: pytest.TempPathFactory, mix: list[list[list[list[str | None]]]], kind: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("text")
    datasets = draw_mix(folder, mix, data, eos=False)
    if not datasets:
        return
    # A cut may give a token more or less in all, and is not there in every corpus of a few words.
    for dataset in datasets.values():
        dataset |= {"tokens": dataset["tokens"] + 3, "max_repeats": 100, "on_shortfall": "keep"}
    build(make_config(folder, datasets, {"format": kind}), str(folder / "out"), quiet=True)
    for name, dataset in datasets.items():
        manifest = manifest_of(folder / "out" / name)
        if manifest.splits["train"].passes is None or kind == "parquet":
            continue
        documents = documents_of((folder / name).glob("*.parquet"))
        trained, held_out = (read_texts(folder / "out" / name, part) for part in ("train", "eval"))
        assert sum(len(stream_of([text], eos=False)) for text in held_out) == dataset["eval_tokens"]
        assert sum(len(stream_of([text], eos=False)) for text in trained) == manifest.splits["train"].tokens
        assert sorted("".join(trained + held_out)) == sorted("".join(documents))
        if not manifest.splits.get("eval") or not manifest.splits["eval"].documents_put_back:
            assert "".join(trained + held_out) == "".join(documents)
    verify(str(folder / "out"), against=ALL)
    shutil.rmtree(folder)


def test_a_document_put_back_by_the_last_split_moves_those_after_the_cut(tmp_path: Path) -> None:
    """Eval is cut off the end: a document without a cut goes before it, and the rest after it moves on by two."""
    x = "x" * 40
    cut = f"straße12{x}🙂<|eos|> {x}straße straße12straße "
    groups: list[list[str | None]] = [
        ["  Brötchenthe🙂the", "12", "", None, cut, "12🙂\n  Brötchen\n "],
        ["\n", None, f"日本🙂{x}\n", "<|eos|>"],
        [" und12日本straße", "<|eos|>the 🙂", f"{x} the", f"日本🙂12{x}日本", "日本12 "],
    ]
    write_parquet(tmp_path / "d" / "0.parquet", groups)
    config = make_config(tmp_path, {"d": {"tokens": 133, "eval_tokens": 91, "max_repeats": 100}}, {"format": "text"})
    build(config, str(tmp_path / "out"), quiet=True)
    held_out = manifest_of(tmp_path / "out" / "d").splits["eval"]
    assert (held_out.tokens, held_out.documents_put_back) == (91, 1)
    texts = [text for part in ("train", "eval") for text in read_texts(tmp_path / "out" / "d", part)]
    assert texts.index("\n") == 6
    assert texts.index(f"日本🙂{x}\n") == 2
    verify(str(tmp_path / "out"), against=ALL)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for file in range(3):
        groups: list[list[str | None]] = [
            [" ".join(WORDS[(file + group + row + word) % len(WORDS)] for word in range(12)) for row in range(10)]
            for group in range(4)
        ]
        groups[-1][-2:] = [None, ""]
        write_parquet(folder / "a" / f"{file}.parquet", groups)
    return folder


FORMATS: dict[str, dict[str, Any]] = {
    "tokens": {"max_tokens": 64, "add_eos": True},
    "text": {"format": "text"},
    "parquet": {"format": "parquet"},
}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_small_source_is_written_once(corpus: Path, tmp_path: Path, kind: str) -> None:
    total = len(stream_of(documents_of((corpus / "a").glob("*.parquet")), eos=kind == "tokens"))
    once = total - 100
    config = make_config(
        corpus, {"a": {"tokens": 3 * once + 20, "eval_tokens": 100, "max_repeats": 3.5}}, FORMATS[kind]
    )
    build(config, str(tmp_path), quiet=True)
    manifest = manifest_of(tmp_path / "a")
    train, held_out = manifest.splits["train"], manifest.splits["eval"]
    assert (held_out.tokens, held_out.missing, held_out.passes) == (100, 0, None)
    assert (train.budget, train.missing, train.passes) == (3 * once + 20, 0, train.budget / train.tokens)
    # A cut of text may make a token more of its document.
    assert train.tokens == once if kind == "tokens" else abs(train.tokens - once) <= 2
    assert manifest.rows == 120
    assert manifest.skipped == {"empty": 3, "null": 3}
    assert manifest.config["dataset"]["max_repeats"] == 3.5
    verify(str(tmp_path), against=ALL)
    verify(str(tmp_path), quick=True)
    # A second build finds it finished.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    build(config, str(tmp_path), quiet=True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("change", ["passes", "fewer", "cap", "eval"])
def test_a_manifest_that_contradicts_its_passes_is_a_problem(corpus: Path, tmp_path: Path, change: str) -> None:
    config = make_config(corpus, {"a": {"tokens": 9000, "eval_tokens": 50, "max_repeats": 40}}, FORMATS["tokens"])
    build(config, str(tmp_path), quiet=True)
    path = tmp_path / "a" / "manifest.json"
    content = json.loads(path.read_text())
    train = content["splits"]["train"]
    match change:
        case "passes":
            train["passes"] += 1
        case "fewer":
            del train["passes"]
        case "cap":
            content["config"]["dataset"]["max_repeats"] = 1.25
        case "eval":
            content["splits"]["eval"]["passes"] = 2.0
    path.write_text(json.dumps(content))
    said = {
        "passes": "train is said to be read .* times, and has",
        "fewer": "train adds up to",
        "cap": "to lack 0 of 9,000 tokens, and its config allows 1.25 times",
        "eval": "eval is said to be read 2 times, and only train can be",
    }
    with pytest.raises(BroetchenError, match=said[change]):
        verify(str(tmp_path), quick=True)


def test_a_build_that_was_short_goes_on_with_its_shards_once_it_may_repeat(corpus: Path, tmp_path: Path) -> None:
    """Nothing is tokenized again; and it ends as one that could repeat from the beginning."""
    dataset = {"tokens": 9000, "eval_tokens": 50}
    with pytest.raises(BroetchenError, match="the source is exhausted"):
        build(make_config(corpus, {"a": dataset}, FORMATS["tokens"]), str(tmp_path / "out"), quiet=True)
    with pytest.raises(BroetchenError, match=r"are read 1\.5 times \(max_repeats\)"):
        build(
            make_config(corpus, {"a": dataset | {"max_repeats": 1.5}}, FORMATS["tokens"]),
            str(tmp_path / "out"),
            quiet=True,
        )
    shards = State(tmp_path / "out").finished_shards()
    assert len(shards) > 3
    config = make_config(corpus, {"a": dataset | {"max_repeats": 40}}, FORMATS["tokens"])
    build(config, str(tmp_path / "out"), quiet=True)
    published = {(path.stat().st_ino, path.stat().st_mtime_ns) for path in (tmp_path / "out" / "a").glob("*.arecord")}
    assert len(published & set(shards.values())) >= len(published) - 2
    build(config, str(tmp_path / "fresh"), quiet=True)
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_repeats_that_are_not_needed_change_no_shard(corpus: Path, tmp_path: Path) -> None:
    """Only the config that the manifest shows; and with 1 not even that."""
    dataset = {"tokens": 500, "eval_tokens": 50}
    trees = {}
    for name, most in (("plain", {}), ("one", {"max_repeats": 1}), ("four", {"max_repeats": 4})):
        build(make_config(corpus, {"a": dataset | most}, FORMATS["tokens"]), str(tmp_path / name), quiet=True)
        trees[name] = tree(tmp_path / name / "a")
    assert trees["plain"] == trees["one"]
    assert trees["plain"].keys() == trees["four"].keys()
    differing = [path for path, digest in trees["plain"].items() if trees["four"][path] != digest]
    assert differing == ["manifest.json"]
    plain, four = (json.loads((tmp_path / name / "a" / "manifest.json").read_text()) for name in ("plain", "four"))
    assert four["config"]["dataset"].pop("max_repeats") == 4
    assert four | {"fingerprint": ""} == plain | {"fingerprint": ""}


@pytest.mark.slow
def test_a_repeated_mix_is_killed_and_ends_the_same(tmp_path: Path) -> None:
    config = write_mix(tmp_path, {"a": 2_000_000, "b": 3_000_000})
    repeats = ["--set", "datasets.a.max_repeats=40", "--set", "datasets.b.max_repeats=40"]
    assert run_command("build", config, "--output", tmp_path / "reference", *repeats).returncode == 0
    reference = tree(tmp_path / "reference")
    assert json.loads((tmp_path / "reference" / "a" / "manifest.json").read_text())["splits"]["train"]["passes"] > 2
    state, killed = State(tmp_path / "out"), 0
    command: list[str | Path] = ["build", config, "--output", state.output, "--engine", "tokenizers", *repeats]
    moments = [
        Moment(State.shards, 5, 0.3),
        Moment(State.publications, 1, 0.03),
        Moment(State.published, 3, 0.05),
        Moment(State.manifests, 1, 0.03),
    ]
    for at_work in killed_at(moments, state, random.Random(3), *command):
        killed += at_work
        check_nothing_is_half_there(state.output, reference)
    assert killed >= 2
    assert run_command("build", config, "--output", state.output, *repeats).returncode == 0
    assert tree(state.output) == reference
