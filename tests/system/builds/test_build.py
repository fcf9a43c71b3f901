"""The main job, end to end: exact, deterministic, frugal, resumable, all or nothing."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tokenizers
import yaml
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from beam_pipelines.config.mix import MixConfig, load_config
from beam_pipelines.jobs.build import build
from beam_pipelines.jobs.verify import verify
from tests.support.corpora import BOS, EOS, TOKENIZER, documents_of, reference_ids, write_parquet
from tests.support.examples import at_most
from tests.support.megatron.pairs import write_pair
from tests.support.reading import read_ids, read_pairs, read_texts
from tests.support.small_builds import follow_split
from transforms.arrayrecord.records import Format
from transforms.dataset.manifest import Manifest, read_manifest
from transforms.errors import BroetchenError, UsageError

WORDS = ["Brötchen", "und", "the", " ", "12", "\n", "straße", "fi", "日本", "🙂", "e\u0301", "…", "<|eos|>", "x" * 40]


def make_config(folder: Path, datasets: Mapping[str, Mapping[str, Any]], **others: Any) -> MixConfig:
    """A config over `folder/<dataset>/*.parquet`."""
    content = {
        "name": "test",
        "tokenizer": {"path": str(TOKENIZER), "bos_token": "<|bos|>", "eos_token": "<|eos|>"},
        "records": {"max_tokens": 8, "add_eos": True},
        "shards": {"target_size": 200},
        "datasets": {name: {"source": f"{folder}/{name}/*.parquet", **dataset} for name, dataset in datasets.items()},
    }
    content |= others
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_config(str(path))


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, hidden ones too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def manifest_of(folder: Path) -> Manifest:
    manifest = read_manifest(str(folder))
    assert manifest is not None
    return manifest


def flat(documents: Sequence[Sequence[int]]) -> list[int]:
    return [token for document in documents for token in document]


texts = st.lists(st.sampled_from(WORDS), max_size=30).map("".join)
row_groups = st.lists(st.lists(st.one_of(st.none(), texts), max_size=6), min_size=1, max_size=4)
corpora = st.lists(row_groups, min_size=1, max_size=3)
# Several a build: it is the build that takes the time.
mixes = st.lists(corpora, min_size=1, max_size=5)


def write_dataset(folder: Path, files: Sequence[Sequence[Sequence[str | None]]]) -> list[str]:
    """Writes a file for each list of row groups; returns all documents in order."""
    for number, groups in enumerate(files):
        write_parquet(folder / f"{number}.parquet", groups)
    return documents_of(folder.glob("*.parquet"))


def draw_budgets(data: st.DataObject, total: int) -> tuple[int, int]:
    """Train and eval budgets that a source of `total` tokens can meet, the ends of the range more often."""
    train = data.draw(st.sampled_from([1, total]) | st.integers(1, total), "train")
    return train, data.draw(st.integers(0, total - train), "eval")


def draw_mix(
    folder: Path,
    mix: Sequence[Sequence[Sequence[Sequence[str | None]]]],
    data: st.DataObject,
    bos: int | None = None,
    eos: int | None = None,
) -> tuple[dict[str, dict[str, int]], dict[str, list[str]]]:
    """Writes a dataset for each corpus, and draws its budgets from its tokens by the reference.

    Returns:
        budgets as a config has them, and documents, of each dataset that holds a token.
    """
    budgets, documents = {}, {}
    for number, corpus in enumerate(mix):
        name = f"dataset-{number}"
        texts = write_dataset(folder / name, corpus)
        if total := len(flat(reference_ids(texts, bos=bos, eos=eos))):
            train, evaluation = draw_budgets(data, total)
            budgets[name], documents[name] = {"tokens": train, "eval_tokens": evaluation}, texts
    return budgets, documents


@pytest.mark.slow
@at_most(12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(mixes, st.sampled_from(["tokens", "megatron"]), st.integers(1, 9), st.booleans(), st.booleans(), st.data())
def test_any_corpora_give_the_first_ids_of_their_documents(
    tmp_path_factory: pytest.TempPathFactory,
    mix: list[list[list[list[str | None]]]],
    record_format: Format,
    max_tokens: int,
    add_bos: bool,
    add_eos: bool,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    bos, eos = BOS if add_bos else None, EOS if add_eos else None
    budgets, documents = draw_mix(folder, mix, data, bos, eos)
    if not budgets:
        return
    records = {"format": record_format, "max_tokens": max_tokens, "add_bos": add_bos, "add_eos": add_eos}
    build(make_config(folder, budgets, records=records), str(folder / "out"), quiet=True)
    read = read_ids if record_format == "tokens" else read_pairs
    for name, budget in budgets.items():
        ids, train = reference_ids(documents[name], bos=bos, eos=eos), budget["tokens"]
        stream, end = flat(ids), train + budget["eval_tokens"]
        of_train, held_out = (read(folder / "out" / name, split) for split in ("train", "eval"))
        assert flat(of_train) == stream[:train]
        assert flat(held_out) == stream[train:end]
        if record_format == "tokens":
            assert all(0 < len(record) <= max_tokens for record in [*of_train, *held_out])
        else:
            # A document ends where it ends in the source, and where its split does.
            ends = {*itertools.accumulate(map(len, filter(None, ids))), train, end}
            assert [*itertools.accumulate(map(len, [*of_train, *held_out]))] == sorted(e for e in ends if 0 < e <= end)
    verify(str(folder / "out"))
    shutil.rmtree(folder)


def count_alone(text: str) -> int:
    return len(flat(reference_ids([text], eos=None)))


@pytest.mark.slow
@at_most(8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(mixes, st.data())
def test_any_text_corpora_are_exact_when_counted_by_tokenizers_alone(
    tmp_path_factory: pytest.TempPathFactory, mix: list[list[list[list[str | None]]]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("text")
    budgets, documents = draw_mix(folder, mix, data)
    if not budgets:
        return
    config = make_config(folder, budgets, records={"format": "text"}, on_shortfall="keep")
    build(config, str(folder / "out"), quiet=True)
    for name, budget in budgets.items():
        manifest = manifest_of(folder / "out" / name)
        # Nothing is in both splits, nothing is made up, and all is in its order.
        waiting = documents[name]
        for split, wanted in (("train", budget["tokens"]), ("eval", budget["eval_tokens"])):
            written = read_texts(folder / "out" / name, split)
            waiting, put_back = follow_split(written, waiting, wanted, count_alone)
            entry = manifest.splits.get(split)
            said = (entry.budget, entry.missing, entry.documents_put_back) if entry else (0, 0, 0)
            assert said == (wanted, wanted - sum(map(count_alone, written)), put_back)
    verify(str(folder / "out"))
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets of a few thousand tokens in files with several row groups."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, files in (("a", 3), ("b", 2)):
        for file in range(files):
            groups = [
                [" ".join(WORDS[(file + group + row + i) % len(WORDS)] for i in range(12)) for row in range(10)]
                for group in range(4)
            ]
            groups[1][3:5] = [None, ""]  # type: ignore[list-item]
            write_parquet(folder / name / f"{file}.parquet", groups)
    return folder


PAIRS = {"format": "megatron", "add_eos": True}
DATASETS = {"a": {"tokens": 3001, "eval_tokens": 97}, "b": {"tokens": 1500, "eval_tokens": 64}}

RUNS = {
    "in memory": [],
    "threads": ["--direct_running_mode=multi_threading", "--direct_num_workers=3"],
    "processes": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
    "bundles twice": ["--direct_runner_bundle_repeat=1"],
    "direct runner": ["--runner=DirectRunner"],
}


@pytest.fixture(scope="module")
def built(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of the plain build that others are compared with."""
    output = tmp_path_factory.mktemp("built") / "out"
    build(make_config(corpus, DATASETS), str(output), quiet=True)
    return tree(output)


@pytest.mark.parametrize(
    "run", [run if run == "in memory" else pytest.param(run, marks=pytest.mark.slow) for run in RUNS]
)
@pytest.mark.parametrize("engine", ["tokenizers", "gigatoken"])
def test_every_runner_and_engine_gives_the_same_bytes(
    corpus: Path, built: dict[str, str], tmp_path: Path, run: str, engine: str
) -> None:
    config = make_config(corpus, DATASETS)
    build(config, str(tmp_path / "out"), engine=engine, beam_arguments=RUNS[run], quiet=True)  # type: ignore[arg-type]
    assert tree(tmp_path / "out") == built


@pytest.fixture(scope="module")
def pairs(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same in Megatron's format."""
    output = tmp_path_factory.mktemp("pairs") / "out"
    build(make_config(corpus, DATASETS, records=PAIRS), str(output), quiet=True)
    return tree(output)


@pytest.mark.slow
@pytest.mark.parametrize("run", ["threads", "processes", "bundles twice"])
def test_every_runner_gives_the_same_pairs(corpus: Path, pairs: dict[str, str], tmp_path: Path, run: str) -> None:
    config = make_config(corpus, DATASETS, records=PAIRS)
    build(config, str(tmp_path / "out"), beam_arguments=RUNS[run], quiet=True)
    assert tree(tmp_path / "out") == pairs


def test_pairs_are_what_megatrons_own_tool_writes(corpus: Path, pairs: dict[str, str], tmp_path: Path) -> None:
    """The documents are the same: the whole of dataset b in one shard, as `preprocess_data.py --append-eod` has it."""
    ids = reference_ids(documents_of((corpus / "b").glob("*.parquet")))
    config = make_config(corpus, {"b": {"tokens": len(flat(ids))}}, records=PAIRS, shards={"target_size": "1GiB"})
    build(config, str(tmp_path / "out"), quiet=True)
    found = tmp_path / "out" / "b"
    manifest = manifest_of(found)
    assert len(ids) == manifest.splits["train"].records > 70
    write_pair(tmp_path / "theirs", ids, manifest.tokenizer.vocab_size)
    for ending in ("bin", "idx"):
        ours = (found / f"train-00000-of-00001.{ending}").read_bytes()
        assert ours == (tmp_path / f"theirs.{ending}").read_bytes()
    # And where nothing is so large, each shard is a pair of its own, all of which hold the same documents.
    assert len([name for name in pairs if name.startswith("b/train-")]) > 6


@pytest.mark.slow
def test_datasets_one_after_another_give_the_same_bytes(corpus: Path, built: dict[str, str], tmp_path: Path) -> None:
    for name in ("b", "a"):
        build(make_config(corpus, DATASETS), str(tmp_path), datasets=[name], quiet=True)
    assert tree(tmp_path) == built


def test_the_output_has_the_files_that_it_should(built: dict[str, str]) -> None:
    names = [name for name in built if name.startswith("a/")]
    trains = [name for name in names if name.startswith("a/train-")]
    assert len(trains) > 3
    assert trains == [f"a/train-{index:05d}-of-{len(trains):05d}.arecord" for index in range(len(trains))]
    assert "a/manifest.json" in names
    assert not [name for name in built if name.startswith(".")]


def test_a_second_build_does_nothing(corpus: Path, tmp_path: Path) -> None:
    config = make_config(corpus, DATASETS)
    build(config, str(tmp_path), quiet=True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    build(config, str(tmp_path), quiet=True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_another_config_is_refused_and_overwrite_replaces(corpus: Path, built: dict[str, str], tmp_path: Path) -> None:
    other = {"a": {"tokens": 700}, "b": {"tokens": 800}}
    build(make_config(corpus, other), str(tmp_path), quiet=True)
    before = tree(tmp_path)
    with pytest.raises(BroetchenError, match=r"another config.*--overwrite"):
        build(make_config(corpus, DATASETS), str(tmp_path), quiet=True)
    assert tree(tmp_path) == before
    build(make_config(corpus, DATASETS), str(tmp_path), overwrite=True, quiet=True)
    assert tree(tmp_path) == built


def test_a_short_source_fails_with_the_number_and_publishes_nothing(corpus: Path, tmp_path: Path) -> None:
    available = len(flat(reference_ids(documents_of((corpus / "b").glob("*.parquet")))))
    config = make_config(corpus, {"a": DATASETS["a"], "b": {"tokens": available + 5, "eval_tokens": 10}})
    with pytest.raises(BroetchenError, match=r"dataset b: the source is exhausted .* 15 tokens missing in all"):
        build(config, str(tmp_path), quiet=True)
    assert [path.name for path in (tmp_path / "b").iterdir()] == [".broetchen"]
    # The other dataset is whole.
    assert manifest_of(tmp_path / "a").splits["train"].tokens == 3001


def test_a_short_source_is_kept_where_the_config_says_so(corpus: Path, tmp_path: Path) -> None:
    stream = flat(reference_ids(documents_of((corpus / "b").glob("*.parquet"))))
    config = make_config(corpus, {"b": {"tokens": len(stream) - 5, "eval_tokens": 30, "on_shortfall": "keep"}})
    build(config, str(tmp_path), quiet=True)
    manifest = manifest_of(tmp_path / "b")
    assert (manifest.splits["train"].missing, manifest.splits["eval"].missing) == (0, 25)
    assert flat(read_ids(tmp_path / "b", "eval")) == stream[-5:]
    verify(str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("record_format", ["text", "parquet"])
def test_text_is_read_on_behind_a_long_document_without_a_cut(tmp_path: Path, record_format: str) -> None:
    """No prefix of the first document has one token, and the document is longer than the text read in reserve."""
    (emoji,) = reference_ids(["🙂"], eos=None)
    assert len(emoji) > 1
    write_parquet(tmp_path / "a" / "0.parquet", [["🙂" * 5000], ["x" for _ in range(3)], ["y"]])
    for train in (1, 3):
        config = make_config(tmp_path, {"a": {"tokens": train}}, records={"format": record_format})
        output = tmp_path / f"out-{train}"
        build(config, str(output), quiet=True)
        split = manifest_of(output / "a").splits["train"]
        assert (split.tokens, split.missing, split.documents_put_back) == (train, 0, int(train == 1))
        verify(str(output))


def test_the_manifest_counts_what_was_left_out(tmp_path: Path) -> None:
    """Up to the document of the cut, or all where the source is short."""
    rows = [b"ein Text", None, b"", b"\xff\xfe", b"noch ein Text", None]
    write_parquet(tmp_path / "a" / "0.parquet", [rows], kind=pa.binary())
    first = len(flat(reference_ids(["ein Text"])))
    datasets: dict[str, dict[str, Any]] = {
        "first": {"tokens": first},
        "more": {"tokens": first + 1},
        "all": {"tokens": 1_000, "on_shortfall": "keep"},
    }
    for name in datasets:
        shutil.copytree(tmp_path / "a", tmp_path / name)
    build(make_config(tmp_path, datasets), str(tmp_path / "out"), quiet=True)
    found = {name: manifest_of(tmp_path / "out" / name) for name in datasets}
    assert {name: (manifest.rows, manifest.skipped) for name, manifest in found.items()} == {
        "first": (1, {}),
        "more": (5, {"empty": 1, "not_text": 1, "null": 1}),
        "all": (6, {"empty": 1, "not_text": 1, "null": 2}),
    }
    assert {tuple(manifest.source[0].row_groups) for manifest in found.values()} == {(0,)}


@pytest.mark.slow
@pytest.mark.parametrize("special_tokens", ["text", "token"])
@pytest.mark.parametrize("engine", ["tokenizers", "gigatoken"])
def test_a_special_token_in_a_document_is_what_the_config_says(
    tmp_path: Path, special_tokens: str, engine: str
) -> None:
    documents = ["Anfang <|eos|> Mitte<|bos|>", "nichts Besonderes", "<|eos|>"]
    write_parquet(tmp_path / "a" / "0.parquet", [documents])
    expected = flat(reference_ids(documents, special_tokens=special_tokens))
    config = make_config(
        tmp_path,
        {"a": {"tokens": len(expected)}},
        tokenizer={"path": str(TOKENIZER), "eos_token": "<|eos|>", "special_tokens": special_tokens},
    )
    build(config, str(tmp_path / "out"), engine=engine, quiet=True)  # type: ignore[arg-type]
    assert flat(read_ids(tmp_path / "out" / "a", "train")) == expected
    assert (expected.count(EOS) == 3) == (special_tokens == "text")


def test_it_reads_no_more_row_groups_than_the_budget_needs(tmp_path: Path) -> None:
    """Row groups after the budget's end are garbage: touching one would fail the build."""
    groups = [[f"Dokument {group} {row} " + "Wort " * 200 for row in range(20)] for group in range(30)]
    path = tmp_path / "a" / "0.parquet"
    write_parquet(path, groups)
    per_group = [len(flat(reference_ids(rows))) for rows in groups]
    budget = sum(per_group[:9]) + 10
    config = make_config(tmp_path, {"a": {"tokens": budget}}, shards={"target_size": "16KiB"})
    build(config, str(tmp_path / "out"), quiet=True)
    (source,) = manifest_of(tmp_path / "out" / "a").source
    assert source.row_groups == list(range(10))


def test_a_shuffled_order_is_a_permutation_of_row_groups(corpus: Path, tmp_path: Path) -> None:
    available = len(flat(reference_ids(documents_of((corpus / "b").glob("*.parquet")))))
    outputs = {}
    for seed in (1, 2):
        config = make_config(corpus, {"b": {"tokens": available, "order": "shuffled"}}, seed=seed)
        build(config, str(tmp_path / str(seed)), quiet=True)
        outputs[seed] = flat(read_ids(tmp_path / str(seed) / "b", "train"))
    assert outputs[1] != outputs[2]
    assert sorted(outputs[1]) == sorted(outputs[2])


def test_missing_eos_and_unknown_datasets_are_refused_before_anything_starts(corpus: Path, tmp_path: Path) -> None:
    config = make_config(corpus, DATASETS, tokenizer={"path": str(TOKENIZER)})
    with pytest.raises(UsageError, match=r"records\.add_eos: is true.*tokenizer\.eos_token"):
        build(config, str(tmp_path / "out"), quiet=True)
    with pytest.raises(UsageError, match="--dataset c: the config has no such dataset; it has a, b"):
        build(make_config(corpus, DATASETS), str(tmp_path / "out"), datasets=["c"], quiet=True)
    assert not (tmp_path / "out").exists()


def test_the_sample_tokenizer_is_what_the_tests_think_it_is() -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(TOKENIZER))
    assert (tokenizer.token_to_id("<|bos|>"), tokenizer.token_to_id("<|eos|>")) == (BOS, EOS)
