"""The mix config: the keys it takes, the exact budgets it gives, and every error that it names."""

import contextlib
import json
import pickle
import re
import socket
import subprocess
import sys
import urllib.request
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from apache_beam.internal.gcp import auth
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from gcp_storage_emulator.server import create_server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from beam_pipelines.config.budgets import DatasetBudget
from beam_pipelines.config.mix import MixConfig, load_config
from beam_pipelines.config.sections import DatasetConfig, RecordsConfig, ShardsConfig, TokenizerConfig
from beam_pipelines.config.sources import HubDataset
from transforms.arrayrecord.options import writer_options
from transforms.errors import UsageError
from transforms.patterns import matches

ROOT = Path(__file__).resolve().parents[3]
MIXES = ROOT / "mix_configs"
SHIPPED = ["demo.yaml", "vocab-corpus.yaml", "30-50-5-5-10/mix.yaml", "30-50-5-5-10/mix-as-published.yaml"]
REVISION = "9bb295ddab0e05d785b879661af7260fed5140fc"

GOOD = """\
name: my-mix
tokenizer: {path: ./tokenizer.json, eos_token: <|eos|>}
total_tokens: 1_000
datasets:
  german: {share: 66.7%, source: german/*.parquet}
  english: {share: 33.3%, eval_tokens: 10, source: [english/a.parquet, english/b.parquet]}
"""


@pytest.fixture
def write(tmp_path):
    """Writes a config and gives its path; `changes` are (old, new) pairs of its text."""

    def write_config(text=GOOD, *changes):
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "mix.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write_config


def errors_of(path, **kwargs):
    """The lines of the error that a config raises, without the folder it lies in."""
    with pytest.raises(UsageError) as raised:
        load_config(path, **kwargs)
    assert raised.value.exit_code == 2
    return str(raised.value).replace(str(Path(path).parent) + "/", "").splitlines()


# --- What it takes ----------------------------------------------------------------------------------------------------


def test_a_config_and_its_defaults(write):
    config = load_config(write())
    assert (config.name, config.total_tokens, config.on_shortfall, config.seed) == ("my-mix", 1000, "fail", 0)
    assert (config.records.format, config.records.max_tokens) == ("tokens", 2048)
    assert (config.records.add_bos, config.records.add_eos) == (False, False)
    assert (config.shards.target_size, config.shards.compression, config.shards.group_size) == (512 * 2**20, "zstd", 1)
    assert config.shards.max_records == 25_000
    assert config.tokenizer.special_tokens == "text"
    german = config.datasets["german"]
    assert (german.share, german.tokens, german.source) == (Fraction(667, 1000), None, ("german/*.parquet",))
    assert (german.text_column, german.order, german.on_shortfall) == ("text", "sequential", None)
    assert config.budgets() == {"german": DatasetBudget(667, 0), "english": DatasetBudget(333, 10)}
    assert config.budgets()["english"].total == 343


def test_the_config_is_frozen(write):
    config = load_config(write())
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        config.datasets["german"].share = Fraction(1)


def test_tokens_instead_of_shares(write):
    by_tokens = (("share: 66.7%", "tokens: 1.5M"), ("share: 33.3%", "tokens: 2e3"))
    config = load_config(write(GOOD, *by_tokens, ("total_tokens: 1_000\n", "")))
    assert config.budgets() == {"german": DatasetBudget(1_500_000, 0), "english": DatasetBudget(2000, 10)}
    same = load_config(write(GOOD, *by_tokens, ("1_000", "1_502_000")))
    assert same.budgets() == config.budgets()


def test_shortfall_of_a_dataset_overrides_the_mixes(write):
    config = load_config(write(GOOD + "on_shortfall: keep\n", ("{share: 66.7%,", "{share: 66.7%, on_shortfall: fail,")))
    assert (config.shortfall("german"), config.shortfall("english")) == ("fail", "keep")


@pytest.mark.parametrize(
    "written",
    ["zstd", "zstd:3", "zstd:-131072", "zstd:22", "brotli", "brotli:0", "brotli:11", "snappy", "none"],
)
def test_the_shard_writer_takes_every_compression_that_a_config_takes(write, tmp_path, written):
    shards = load_config(write(GOOD + f"shards: {{compression: {written}, group_size: 3}}\n")).shards
    assert (shards.compression, shards.group_size) == (written, 3)
    file = str(tmp_path / "records.arecord")
    writer = ArrayRecordWriter(file, writer_options(shards.group_size, shards.compression))
    writer.write(b"a record")
    writer.close()
    reader = ArrayRecordReader(file)
    assert reader.read([0]) == [b"a record"]
    assert "group_size:3," in reader.writer_options_string()
    assert written.replace("none", "uncompressed") in reader.writer_options_string()
    reader.close()


@pytest.mark.parametrize("written", ["zstd:23", "zstd:-131073", "brotli:12", "brotli:-1", "none:1"])
def test_the_levels_that_a_config_refuses_are_those_of_array_record(write, tmp_path, written):
    assert len(errors_of(write(GOOD + f"shards: {{compression: {written}}}\n"))) == 1
    with pytest.raises(ValueError, match="invalid value"):
        ArrayRecordWriter(str(tmp_path / "records.arecord"), written.replace("none", "uncompressed"))


def test_keys_and_plain_values_are_text_where_yaml_1_1_sees_other_types(write):
    text = GOOD.replace("my-mix", "2025-01-31").replace("german:", "2024:").replace("english:", "no:")
    config = load_config(write(text))
    assert config.name == "2025-01-31"
    assert list(config.datasets) == ["2024", "no"]


def test_aliases_and_merges(write):
    config = load_config(
        write(
            """
name: merged
tokenizer: {path: ./tokenizer.json}
datasets:
  german: &first {tokens: 5, eval_tokens: 1, text_column: body, source: &files [a.parquet, b.parquet]}
  english: &second {<<: *first, tokens: 6, source: *files}
  french: {<<: [{order: shuffled, eval_tokens: 2}, *second]}
"""
        )
    )
    assert config.budgets() == {
        "german": DatasetBudget(5, 1),
        "english": DatasetBudget(6, 1),
        "french": DatasetBudget(6, 2),
    }
    assert {dataset.text_column for dataset in config.datasets.values()} == {"body"}
    assert config.datasets["french"].source == ("a.parquet", "b.parquet")
    assert config.datasets["french"].order == "shuffled"


def test_a_byte_order_mark_is_no_part_of_the_first_key(write):
    assert load_config(write(b"\xef\xbb\xbf" + GOOD.encode())).name == "my-mix"


# --- Paths ------------------------------------------------------------------------------------------------------------


def test_relative_paths_start_at_the_folder_of_the_config(write, tmp_path, monkeypatch):
    path = write(GOOD, ("./tokenizer.json", "../tokenizers/x.json"), ("[english/a.parquet", "[/data/a.parquet"))
    monkeypatch.chdir(tmp_path)
    config = load_config("mix.yaml")
    monkeypatch.chdir("/")
    assert config.tokenizer_path() == str(tmp_path.parent / "tokenizers/x.json")
    assert config.sources("german") == (f"{tmp_path}/german/*.parquet",)
    assert config.sources("english") == ("/data/a.parquet", f"{tmp_path}/english/b.parquet")
    assert config.resolve("gs://bucket/x") == "gs://bucket/x"
    assert config.resolve("~/x.parquet") == str(Path("~/x.parquet").expanduser())
    assert str(tmp_path) not in json.dumps(config.as_written())
    assert load_config(Path(path)).sources("german") == config.sources("german")


def test_a_hub_tokenizer_is_no_path(write):
    changes = ("path: ./tokenizer.json", f"path: EleutherAI/gpt-neox-20b, revision: {REVISION}")
    config = load_config(write(GOOD, changes))
    assert config.tokenizer.is_hub_id
    assert config.tokenizer_path() == "EleutherAI/gpt-neox-20b"


@pytest.mark.parametrize(
    "path", ["./gpt2", "/models/gpt2", "../a/b", "a/b/c", "tokenizer.json", "tokenizer.json.gz", "a/b.json", "gs://b/t"]
)
def test_paths_that_are_no_hub_ids(write, path):
    assert not load_config(write(GOOD, ("./tokenizer.json", path))).tokenizer.is_hub_id


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def test_a_config_on_a_bucket(monkeypatch):
    port = free_port()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://localhost:{port}")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "test")
    # Beam looks for credentials once in a process, with retries: half a minute, where there are none, until it connects
    # without. Here it is told that it has looked.
    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
    server = create_server("localhost", port, in_memory=True, default_bucket="bucket")
    server.start()
    try:
        for name, content in (("mixes/mix.yaml", GOOD), ("mixes/bad.yaml", GOOD + "sed: 1\n")):
            query = f"uploadType=media&name={name.replace('/', '%2F')}"
            url = f"http://localhost:{port}/upload/storage/v1/b/bucket/o?{query}"
            request = urllib.request.Request(url, content.encode(), {"Content-Type": "text/yaml"}, method="POST")
            urllib.request.urlopen(request).close()
        config = load_config("gs://bucket/mixes/mix.yaml")
        assert config.tokenizer_path() == "gs://bucket/mixes/tokenizer.json"
        assert config.sources("german") == ("gs://bucket/mixes/german/*.parquet",)
        assert config.resolve("../corpora/x.parquet") == "gs://bucket/corpora/x.parquet"
        assert config.resolve("../../../x.parquet") == "gs://bucket/x.parquet"
        with pytest.raises(UsageError, match=r"^gs://bucket/mixes/bad.yaml:7: sed: .*did you mean `seed`"):
            load_config("gs://bucket/mixes/bad.yaml")
        with pytest.raises(UsageError, match=r"^gs://bucket/none.yaml: cannot read the config: .*check the path"):
            load_config("gs://bucket/none.yaml")
    finally:
        server.stop()


def test_a_filesystem_that_beam_does_not_know():
    with pytest.raises(UsageError, match=r"^ftp://host/mix.yaml: cannot read the config: .*; check the path"):
        load_config("ftp://host/mix.yaml")


# --- The manifest's copy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_as_written_is_plain_json_that_means_the_same(name):
    config = load_config(MIXES / name)
    written = json.loads(json.dumps(config.as_written()))
    again = MixConfig.model_validate(written)
    assert again.model_dump() == config.model_dump()
    assert again.budgets() == config.budgets()
    assert written["datasets"]["finepdfs_german"]["share"] == "50%"
    assert written["total_tokens"] == config.total_tokens
    assert written["on_shortfall"] == "fail"


def test_a_config_survives_pickling(write, tmp_path):
    config = pickle.loads(pickle.dumps(load_config(write())))
    assert config.sources("german") == (f"{tmp_path}/german/*.parquet",)
    assert config.budgets()["german"].train == 667


def test_a_config_built_in_python_is_checked_too():
    datasets = {
        "a": DatasetConfig.model_validate({"share": "60%", "source": "a"}),
        "b": DatasetConfig.model_validate({"share": "30%", "source": ["b"]}),
    }
    parts = {"name": "x", "tokenizer": {"path": "./t.json"}, "total_tokens": 10}
    with pytest.raises(ValidationError, match=r"shares that add up to 90%, 10% too little"):
        MixConfig.model_validate(parts | {"datasets": datasets})
    datasets["b"] = DatasetConfig.model_validate({"share": "40%", "source": ("b",)})
    assert MixConfig.model_validate(parts | {"datasets": datasets}).sources("a") == ("a",)


def test_the_json_schema_describes_every_key():
    schema = MixConfig.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    assert [section["title"] for section in sections] == [
        "MixConfig", "DatasetConfig", "ExcludeConfig", "RecordsConfig", "ShardsConfig", "TokenizerConfig"
    ]  # fmt: skip
    for section in sections:
        assert section["additionalProperties"] is False
        assert all(key["description"] for key in section["properties"].values())


# --- The shipped mixes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "total", "eval_tokens"),
    [
        ("demo.yaml", 400_000, 2_000),
        ("vocab-corpus.yaml", 2 * 10**9, 0),
        ("30-50-5-5-10/mix.yaml", 2 * 10**11, 10**7),
        ("30-50-5-5-10/mix-as-published.yaml", 2 * 10**11, 10**7),
    ],
)
def test_shipped_mixes_add_up_exactly(name, total, eval_tokens):
    budgets = load_config(MIXES / name).budgets()
    percents = {
        "fineweb2_german": 30,
        "finepdfs_german": 50,
        "fineweb_english": 5,
        "fineweb_edu_english": 5,
        "finepdfs_english": 10,
    }
    assert budgets == {key: DatasetBudget(total * part // 100, eval_tokens) for key, part in percents.items()}
    assert sum(budget.train for budget in budgets.values()) == total


def test_every_shipped_mix_is_tested():
    found = {str(path.relative_to(MIXES)) for path in MIXES.rglob("*.yaml")}
    assert found - {"starter.yaml"} == set(SHIPPED)  # for the starter see test_starter.py


def test_the_recipes_sources():
    german_pdfs = "hf://datasets/HuggingFaceFW/finepdfs@d8e85441529983be986a6eb9e0316627c8035e6d/data/deu_Latn/train/"
    mix = load_config(MIXES / "30-50-5-5-10/mix.yaml")
    assert mix.sources("finepdfs_german") == (german_pdfs + "*.parquet",)
    corpus = load_config(MIXES / "vocab-corpus.yaml")
    assert corpus.sources("finepdfs_german") == (german_pdfs + "000_0000[0-9].parquet",)
    assert corpus.sources("fineweb_english") == mix.sources("fineweb_english")
    assert (corpus.records.format, mix.records.format, mix.records.add_eos) == ("text", "tokens", True)
    assert mix.tokenizer_path() == str(MIXES / "30-50-5-5-10/tokenizer.json")


def test_the_recipe_is_as_published_but_for_its_sources():
    """Each pattern is as wide as the published one, or wider, and begins with the same files; the pins are the same."""
    mix, published = (load_config(MIXES / "30-50-5-5-10" / name) for name in ("mix.yaml", "mix-as-published.yaml"))
    for name in mix.datasets:
        (now,), (before,) = mix.sources(name), published.sources(name)
        assert now.rpartition("/")[0] == before.rpartition("/")[0]
        files = [f"{file:03}_{writer:05}.parquet" for file in range(3) for writer in range(60)]
        wide, narrow = (
            [file for file in files if matches([pattern.rpartition("/")[2]], [file])] for pattern in (now, before)
        )
        assert wide[: len(narrow)] == narrow
        assert (len(wide) > len(narrow)) == ("10BT" not in now)
    assert {name: dataset.max_repeats for name, dataset in mix.datasets.items()} == {
        "fineweb2_german": None,
        "finepdfs_german": None,
        "fineweb_english": 2,
        "fineweb_edu_english": 2,
        "finepdfs_english": None,
    }
    sources = dict.fromkeys(("source", "max_repeats"))
    assert [dataset.model_dump() | sources for dataset in mix.datasets.values()] == [
        dataset.model_dump() | sources for dataset in published.datasets.values()
    ]
    assert mix.as_written() | {"datasets": None} == published.as_written() | {"datasets": None}


@pytest.mark.parametrize(
    ("written", "most", "in_manifest"),
    [("4", 4.0, 4), ("2.5", 2.5, 2.5), ("1", 1.0, 1), ("100", 100.0, 100), ("1.0001", 1.0001, 1.0001)],
)
def test_a_dataset_may_be_repeated(write, written, most, in_manifest):
    config = load_config(write(), overrides={"datasets.german.max_repeats": written})
    assert config.datasets["german"].max_repeats == most
    shown = config.as_written()["datasets"]["german"]["max_repeats"]
    assert (shown, type(shown)) == (in_manifest, type(in_manifest))
    assert MixConfig.model_validate(config.as_written()).datasets == config.datasets


@pytest.mark.parametrize("written", ["0", "0.5", "101", "-2", "1.00001", "four", "true", "4x", "1e22", ".inf", "[2]"])
def test_what_is_no_number_of_repeats(write, written):
    with pytest.raises(UsageError, match="is not how often a dataset may be read; write a number from 1 to 100"):
        load_config(write(), overrides={"datasets.german.max_repeats": written})


def test_the_demo_reads_only_the_samples():
    demo = load_config(MIXES / "demo.yaml")
    assert demo.tokenizer_path() == str(ROOT / "samples/tokenizer.json")
    for name in demo.datasets:
        assert demo.sources(name) == (str(ROOT / "samples/corpora" / name / "*.parquet"),)


# --- Overrides --------------------------------------------------------------------------------------------------------


def test_overrides_are_read_like_the_file(write):
    config = load_config(
        write(),
        overrides={
            "total_tokens": "2K",
            "records.max_tokens": "16",
            "records.add_eos": "true",
            "seed": 3,
            "shards.compression": "none",
            "datasets.german.share": "50%",
            "datasets.english.share": "50%",
            "datasets.german.source": "*.parquet",
            "datasets.english.source": "[a.parquet, 'b c.parquet']",
            "tokenizer.bos_token": "'[BOS]'",
        },
    )
    assert config.budgets() == {"german": DatasetBudget(1000, 0), "english": DatasetBudget(1000, 10)}
    assert (config.records.max_tokens, config.records.add_eos, config.seed) == (16, True, 3)
    assert config.datasets["german"].source == ("*.parquet",)
    assert config.datasets["english"].source == ("a.parquet", "b c.parquet")
    assert (config.tokenizer.bos_token, config.tokenizer.eos_token) == ("[BOS]", "<|eos|>")
    assert config.shards.compression == "none"
    assert config.as_written()["records"]["max_tokens"] == 16


def test_an_override_of_null_unsets_a_key(write):
    config = load_config(
        write(),
        overrides={
            "total_tokens": "null",
            "datasets.german.share": "null",
            "datasets.german.tokens": "7",
            "datasets.english.share": None,
            "datasets.english.tokens": "8",
        },
    )
    assert config.budgets() == {"german": DatasetBudget(7, 0), "english": DatasetBudget(8, 10)}


def test_an_override_reaches_a_dataset_with_dots_in_its_name_and_a_section_that_is_empty(write):
    path = write(GOOD + "records:\n", ("german:", "german.v1.2:"))
    config = load_config(path, overrides={"datasets.german.v1.2.order": "shuffled", "records.max_tokens": "5"})
    assert config.datasets["german.v1.2"].order == "shuffled"
    assert config.records.max_tokens == 5


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("records.max_tokens", "many", ["records.max_tokens", '"many"', "write digits"]),
        ("records.max_token", "1", ["records.max_token:", "did you mean `max_tokens`?"]),
        ("datasets.germn.share", "1%", ["datasets.germn.share", "does not have", "did you mean german?"]),
        ("datasets.xyz.share", "1%", ["datasets.xyz.share", "does not have", "name one that it has"]),
        ("seed.deep", "1", ["seed.deep", "not a mapping", "check the key"]),
        ("name", "2025", ["name: 2025 is not text", "put it in quotes"]),
        ("datasets.german.source", "[a", ["not valid YAML", "check the quotes"]),
        ("records", "{max_tokens: 1, max_tokens: 2}", ["records.max_tokens", "twice", "remove one"]),
        ("total_tokens", "2", ["total_tokens 2 is a budget of 0"]),
    ],
)
def test_errors_of_overrides_name_the_override(write, key, value, parts):
    path = write(GOOD.replace("seed", "x") + "seed: 1\n", ("66.7%", "90%"), ("33.3%", "10%"))
    [line] = errors_of(path, overrides={key: value})
    # An impossible total shows where the share is, which the file says.
    assert line.startswith("mix.yaml:6: " if key == "total_tokens" else f"mix.yaml (--set {key})")
    for part in parts:
        assert part in line


# --- Errors -----------------------------------------------------------------------------------------------------------

TOKENS = (("share: 66.7%", "tokens: 600"), ("share: 33.3%", "tokens: 400"))
HUB = "hf://datasets/HuggingFaceFW/fineweb"

# changes of GOOD, then the parts of the message's one line: file and line, key, value, fix.
ERRORS = {
    "unknown key": (
        [("name: my-mix", "name: my-mix\nshard: {}")],
        ["mix.yaml:2: shard:", "not a key", "did you mean `shards`?", "keys: name, tokenizer"],
    ),
    "unknown key far from any": (
        [("name: my-mix", "name: my-mix\nqqqq: 1")],
        ["mix.yaml:2: qqqq:", "remove it"],
    ),
    "unknown key of a dataset": (
        [("{share: 66.7%,", "{share: 66.7%, evaltokens: 3,")],
        ["mix.yaml:5: datasets.german.evaltokens:", "did you mean `eval_tokens`?"],
    ),
    "missing key": ([("name: my-mix\n", "")], ["mix.yaml:1: name: is missing", "add `name: my-mix`"]),
    "missing source": (
        [(", source: german/*.parquet", "")],
        ["mix.yaml:5: datasets.german.source: is missing", "add `source: corpora/german/*.parquet`"],
    ),
    "duplicate key": (
        [("total_tokens: 1_000", "total_tokens: 500\ntotal_tokens: 1_000")],
        ["mix.yaml:4: total_tokens:", "twice, on lines 3 and 4", "remove one"],
    ),
    "duplicate dataset": (
        [("  english:", "  german: {share: 66.7%, source: x}\n  english:")],
        ["mix.yaml:6: datasets.german:", "twice, on lines 5 and 6", "remove one"],
    ),
    "shares below 100 %": (
        [("66.7%", "66.6%")],
        ["mix.yaml:4: datasets:", "99.9%", "0.1% too little", "make them 100%", "german 66.6% + english 33.3%"],
    ),
    "shares above 100 %": (
        [("66.7%", "66.70001%")],
        ["datasets:", "100.00001%", "0.00001% too much", "make them 100%"],
    ),
    "share without total": ([("total_tokens: 1_000\n", "")], ["total_tokens: is missing", "add `total_tokens: 200B`"]),
    "share and tokens": (
        [("{share: 66.7%,", "{share: 66.7%, tokens: 3,")],
        ["mix.yaml:5: datasets.german:", '"66.7%"', "tokens 3", "remove one"],
    ),
    "neither share nor tokens": (
        [("share: 66.7%, ", "")],
        ["mix.yaml:5: datasets.german:", "neither share nor tokens", "add `share: 30%`", "`tokens: 60B`"],
    ),
    "share here and tokens there": (
        [TOKENS[0]],
        ["mix.yaml:4: datasets:", "share (english)", "tokens (german)", "all of them tokens"],
    ),
    "total is not the sum": (
        [*TOKENS, ("1_000", "1_001")],
        ["mix.yaml:3: total_tokens: 1001", "sum of the datasets' tokens, 1K", "leave total_tokens out"],
    ),
    "no budget": ([("1_000", "0")], ["mix.yaml:3: total_tokens: 0 is a budget of 0", "give at least 1"]),
    "negative total": ([("1_000", "-1B")], ['mix.yaml:3: total_tokens: "-1B" is negative', "0 or more"]),
    "no tokens": (
        [("share: 66.7%", "tokens: 0K"), ("share: 33.3%", "tokens: 1000")],
        ['mix.yaml:5: datasets.german.tokens: "0K" is a budget of 0', "leave the dataset out"],
    ),
    "negative eval": (
        [("eval_tokens: 10", "eval_tokens: -10")],
        ["mix.yaml:6: datasets.english.eval_tokens: -10 is negative", "0 or more"],
    ),
    "share of zero": ([("66.7%", "0.0%")], ['datasets.german.share: "0.0%" is a budget of 0', "more than 0%"]),
    "share becomes zero tokens": (
        [("1_000", "10"), ("66.7%", "99%"), ("33.3%", "1%")],
        ["mix.yaml:6: datasets.english.share: 1%", "total_tokens 10", "budget of 0 tokens", "raise one of the two"],
    ),
    "share as a number": ([("66.7%", "66")], ["datasets.german.share: 66 is not a percentage", "write it as 66%"]),
    "share as a fraction": (
        [("66.7%", "0.667")],
        ["datasets.german.share: 0.667 is not a percentage", "write it as 30%", "33.3%"],
    ),
    "share beyond 100 %": (
        [("66.7%", "101%")],
        ['datasets.german.share: "101%" is not between 0% and 100%', "part of the whole mix"],
    ),
    "negative share": ([("66.7%", "-66.7%")], ['datasets.german.share: "-66.7%" is not between 0% and 100%']),
    "count with an unknown unit": (
        [("1_000", "200G")],
        ['mix.yaml:3: total_tokens: "200G" is not a number of tokens', "2B"],
    ),
    "count that is not whole": ([("1_000", "1.0001K")], ['total_tokens: "1.0001K" is not whole', "write it as"]),
    "count beyond int64": ([("1_000", "9300000T")], ['total_tokens: "9300000T" is too large', "at most"]),
    "count that is a switch": ([("1_000", "true")], ["total_tokens: true is not a number of tokens", "write it as"]),
    "count that is a list": ([("1_000", "[1]")], ["total_tokens: [1] is not a number of tokens", "write it as"]),
    "eval that is null": ([("eval_tokens: 10", "eval_tokens: null")], ["eval_tokens: null is not a number of tokens"]),
    "no datasets": (
        [(GOOD[GOOD.index("datasets:") :], "datasets: {}\n")],
        ["mix.yaml:4: datasets: {} is empty", "add at least one dataset"],
    ),
    "datasets is a list": (
        [(GOOD[GOOD.index("datasets:") :], "datasets: [a]\n")],
        ['mix.yaml:4: datasets: ["a"] is not a mapping', "`key: value` pairs"],
    ),
    "dataset is text": (
        [("{share: 66.7%, source: german/*.parquet}", "x.parquet")],
        ['mix.yaml:5: datasets.german: "x.parquet" is not a mapping', "`key: value` pairs"],
    ),
    "tokenizer is text": (
        [("{path: ./tokenizer.json, eos_token: <|eos|>}", "t.json")],
        ['mix.yaml:2: tokenizer: "t.json" is not a mapping', "`key: value` pairs"],
    ),
    "mix name with a separator": (
        [("my-mix", "my/mix")],
        ['mix.yaml:1: name: "my/mix" cannot name a folder', 'such as "my-mix"'],
    ),
    "mix name with dots": ([("my-mix", "a..b")], ['name: "a..b" cannot name a folder', "without '..'"]),
    "mix name that starts with a dot": ([("my-mix", ".mix")], ['name: ".mix" cannot name a folder', 'such as "mix"']),
    "mix name with a line break": ([("my-mix", '"a\\nb"')], [r'name: "a\nb" cannot name a folder', 'such as "a-b"']),
    "mix name that is a number": ([("my-mix", "5")], ["mix.yaml:1: name: 5 is not text", "put it in quotes"]),
    "mix name that is too long": ([("my-mix", "a" * 101)], ["name:", "has 101 characters", "shorten it to 100"]),
    "dataset name with a separator": (
        [("german:", "../german:")],
        ['mix.yaml:5: datasets.../german: "../german" cannot name a folder', 'such as "german"'],
    ),
    "dataset name of the manifest": (
        [("german:", "Manifest.json:")],
        ['mix.yaml:5: datasets.Manifest.json: "Manifest.json"', "another name"],
    ),
    "names that differ by case": (
        [("english:", "German:")],
        ['mix.yaml:6: datasets.German: differs from "german" by case alone', "rename one"],
    ),
    "hub tokenizer without a revision": (
        [("./tokenizer.json", "org/tok")],
        [
            'mix.yaml:2: tokenizer.path: the hub tokenizer "org/tok" has no `revision`',
            "https://huggingface.co/org/tok",
            '"./org/tok"',
        ],
    ),
    "hub tokenizer with a branch": (
        [("path: ./tokenizer.json", "path: gpt2, revision: main")],
        ['mix.yaml:2: tokenizer.revision: the hub tokenizer "gpt2" has revision "main"', "40 hexadecimal digits"],
    ),
    "revision of a path": (
        [("path: ./tokenizer.json", f"path: ./t.json, revision: {REVISION}")],
        [f'tokenizer.revision: "{REVISION}" pins nothing, as "./t.json" is a path', "remove `revision`"],
    ),
    "revision of another type": (
        [("path: ./tokenizer.json", "path: gpt2, revision: 12")],
        ["tokenizer.revision: 12 is not text", "put it in quotes"],
    ),
    "tokenizer on the web": (
        [("./tokenizer.json", "https://x.org/t.json")],
        ['tokenizer.path: "https://x.org/t.json" is no path of a tokenizer', "OWNER/NAME"],
    ),
    "empty token": ([("<|eos|>", '""')], ['tokenizer.eos_token: "" is empty', "leave the key out"]),
    "unknown choice": (
        [("<|eos|>", "<|eos|>, special_tokens: drop")],
        ["tokenizer.special_tokens: \"drop\" is not one of 'text' or 'token'"],
    ),
    "text with EOS": (
        [("datasets:", "records: {format: text, add_eos: true}\ndatasets:")],
        [
            "mix.yaml:4: records.add_eos: true cannot go with `records.format: text`",
            "add_eos: false",
            "let the trainer",
        ],
    ),
    "text with BOS": (
        [("datasets:", "records: {format: text, add_bos: true}\ndatasets:")],
        [
            "mix.yaml:4: records.add_bos: true cannot go with `records.format: text`",
            "add_bos: false",
            "let the trainer",
        ],
    ),
    "records of nothing": (
        [("datasets:", "records: {max_tokens: 0}\ndatasets:")],
        ["mix.yaml:4: records.max_tokens: 0 is too small", "at least 1"],
    ),
    "records beyond int32": (
        [("datasets:", "records: {max_tokens: 2147483648}\ndatasets:")],
        ["records.max_tokens: 2147483648 is too large", "at most 2147483647"],
    ),
    "records as a decimal": (
        [("datasets:", "records: {max_tokens: 2048.0}\ndatasets:")],
        ["records.max_tokens: 2048.0 is not a whole number", "without quotes or decimals"],
    ),
    "a switch in words": (
        [("datasets:", "records: {add_eos: yes}\ndatasets:")],
        ['records.add_eos: "yes" is neither true nor false', "write one of them"],
    ),
    "unknown compression": (
        [("datasets:", "shards: {compression: gzip}\ndatasets:")],
        ['mix.yaml:4: shards.compression: "gzip" is no compression', "zstd, brotli, snappy, none"],
    ),
    "no compression as null": (
        [("datasets:", "shards: {compression: null}\ndatasets:")],
        ["shards.compression: null is no compression", "none"],
    ),
    "level out of range": (
        [("datasets:", "shards: {compression: brotli:12}\ndatasets:")],
        ['shards.compression: "brotli:12" has no valid level', "from 0 to 11"],
    ),
    "level that is no number": (
        [("datasets:", "shards: {compression: 'zstd:high'}\ndatasets:")],
        ['shards.compression: "zstd:high" has no valid level', "from -131072 to 22"],
    ),
    "level of no compression": (
        [("datasets:", "shards: {compression: none:1}\ndatasets:")],
        ['shards.compression: "none:1" has a level', "write none"],
    ),
    "level of snappy": (
        [("datasets:", "shards: {compression: snappy:1}\ndatasets:")],
        ['shards.compression: "snappy:1" has a level', "write snappy"],
    ),
    "groups of nothing": (
        [("datasets:", "shards: {group_size: 0}\ndatasets:")],
        ["shards.group_size: 0 is too small", "at least 1"],
    ),
    "shards of no record": (
        [("datasets:", "shards: {max_records: 0}\ndatasets:")],
        ["shards.max_records: 0 is too small", "at least 1"],
    ),
    "shards of nothing": (
        [("datasets:", "shards: {target_size: 0MiB}\ndatasets:")],
        ['shards.target_size: "0MiB" is no size', "512MiB"],
    ),
    "ambiguous size": (
        [("datasets:", "shards: {target_size: 512M}\ndatasets:")],
        ['shards.target_size: "512M" is not a size', "512MiB (1024-based), 512MB (1000-based)"],
    ),
    "negative seed": ([("datasets:", "seed: -1\ndatasets:")], ["mix.yaml:4: seed: -1 is too small", "at least 0"]),
    "hub source without a revision": (
        [("german/*.parquet", f"{HUB}/x.parquet")],
        [f'mix.yaml:5: datasets.german.source[0]: "{HUB}/x.parquet"', "40 hex", f"write {HUB}@REVISION/x.parquet"],
    ),
    "hub source at a branch": (
        [("german/*.parquet", f"{HUB}@main/x.parquet")],
        [f'datasets.german.source[0]: "{HUB}@main/x.parquet" is not pinned', "git ls-remote"],
    ),
    "hub source at a short revision": (
        [("english/b.parquet", f"{HUB}@{REVISION[:12]}/x.parquet")],
        [f'mix.yaml:6: datasets.english.source[1]: "{HUB}@{REVISION[:12]}/x.parquet" is not pinned', "git ls-remote"],
    ),
    "hub source of a model": (
        [("german/*.parquet", f"hf://models/a/b@{REVISION}/x")],
        ["is not a file of a hub dataset", "write hf://datasets/OWNER/NAME@REVISION/path"],
    ),
    "hub source that climbs": (
        [("german/*.parquet", f"{HUB}@{REVISION}/../x")],
        ["is not a file of a hub dataset", "write hf://datasets/OWNER/NAME@REVISION/path"],
    ),
    "source on the web": (
        [("german/*.parquet", "https://x.org/a.parquet")],
        ['"https://x.org/a.parquet" is a web address', "hf://datasets/", "disk or bucket"],
    ),
    "blank source": (
        [("german/*.parquet", '" "')],
        ['mix.yaml:5: datasets.german.source[0]: " " is empty', "write a path"],
    ),
    "no sources": (
        [("german/*.parquet", "[]")],
        ["mix.yaml:5: datasets.german.source: [] is empty", "add at least one source"],
    ),
    "source of another type": (
        [("german/*.parquet", "[a.parquet, 3]")],
        ["datasets.german.source[1]: 3 is not text", "put it in quotes"],
    ),
    "tag of Python": (
        [("my-mix", "!!python/name:os.getcwd mix")],
        ["mix.yaml:1: name:", "python/name:os.getcwd", "remove it"],
    ),
    "tag that fits no value": (
        [("1_000", "!!timestamp 1_000")],
        ['total_tokens: has the YAML tag "tag:yaml.org,2002:timestamp"', "remove it"],
    ),
    "int tag on other text": ([("1_000", "!!int x")], ['total_tokens: "x" is not a number of tokens', "write it as"]),
    "key that is a list": (
        [("name: my-mix", "name: my-mix\n? [a]\n: b")],
        ["mix.yaml:1: (the whole file): has a key on line 2", "write a name"],
    ),
    "merge of no mapping": (
        [("{share: 66.7%,", "{<<: 3, share: 66.7%,")],
        ["mix.yaml:5: datasets.german.<<: 3 is not a mapping", "<<: *name"],
    ),
    "text that is no Unicode": (
        [("<|eos|>", '"\\ud800"')],
        [r'tokenizer.eos_token: "\ud800" is not valid', "write another value"],
    ),
}


@pytest.mark.parametrize(("changes", "parts"), ERRORS.values(), ids=ERRORS)
def test_each_error_says_where_what_and_how_to_mend_it(write, changes, parts):
    [line] = errors_of(write(GOOD, *changes))
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "mix.yaml: is empty; start from"),
        (b"# nothing\n", "mix.yaml: is empty; start from"),
        (b"a: 1\n---\nb: 2\n", "mix.yaml:2:1: is not valid YAML: but found another document"),
        (b"name: [a\n", "mix.yaml:2:1: is not valid YAML: .*; check the quotes"),
        (b"name: a\nx:\n\ty: 1\n", "mix.yaml:3:1: is not valid YAML: .*; indent by blanks, not by a tab"),
        (b"name: *x\n", "mix.yaml:1:7: is not valid YAML: found undefined alias 'x'"),
        (b"name: \x00\n", "mix.yaml: is not valid YAML: character 6 is not printable"),
        ("name: ä\n".encode("latin-1"), r"mix.yaml: is not UTF-8 text \(byte 6\); .*save it as UTF-8"),
        (b"[" * 5000, "mix.yaml: is nested too deep"),
        (b"name: " + b"[" * 30 + b"]" * 30, "mix.yaml:1: is nested too deep"),
        (b"name: &a [*a]\n", "mix.yaml:1: .*refers to itself"),
        (b"a: &a\n  <<: *a\n", "mix.yaml:1: .*refers to itself"),
        (b"#" * (2**20 + 1), "mix.yaml: is larger than 1 MiB"),
        (b"- a\n", r"mix.yaml:1: \(the whole file\): \[\"a\"\] is not a mapping; write `key: value`"),
        (b"text\n", r"mix.yaml:1: \(the whole file\): \"text\" is not a mapping; write `key: value`"),
    ],
)
def test_files_that_are_no_config(write, content, message):
    [line] = errors_of(write(content))
    assert re.match(message, line), line


def test_an_override_of_a_file_that_is_no_mapping(write):
    lines = errors_of(write("[a]"), overrides={"records.format": "text", "": "x"})
    assert [line.split(": ")[1] for line in lines] == ["(the whole file)", '""', "records.format"]


def test_aliases_do_not_multiply(write):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10)]
    [line] = errors_of(write("\n".join(lines)))
    assert line == "mix.yaml:1: aliases repeat more than 1000 values up to here; write them out"


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match=r"none.yaml: there is no such config; check the path"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match=r"is a folder; name the file in it, .*/mix.yaml"):
        load_config(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot read the config: Not a directory; check the path"):
        load_config(tmp_path / "file" / "mix.yaml")


def test_one_message_holds_all_errors_in_the_order_of_the_file(write):
    text = """\
name: ../mix
tokenizer: {path: gpt2}
total_tokens: 10
total_tokens: 200G
records: {format: text, add_eos: true, max_tokens: 0}
datasets:
  german: {share: 50%, source: [hf://datasets/a/b@main/c, 3], ordr: shuffled}
  German: {share: 49%, source: x}
"""
    lines = errors_of(write(text), overrides={"seed": "-1"})
    assert [line.split(": ")[:2] for line in lines] == [
        ["mix.yaml:1", "name"],
        ["mix.yaml:2", "tokenizer.path"],
        ["mix.yaml:4", "total_tokens"],
        ["mix.yaml:4", "total_tokens"],
        ["mix.yaml:5", "records.add_eos"],
        ["mix.yaml:5", "records.max_tokens"],
        ["mix.yaml:6", "datasets"],
        ["mix.yaml:7", "datasets.german.ordr"],
        ["mix.yaml:7", "datasets.german.source[0]"],
        ["mix.yaml:7", "datasets.german.source[1]"],
        ["mix.yaml:8", "datasets.German"],
        ["mix.yaml (--set seed)", "seed"],
    ]


def test_a_message_has_an_end(write):
    lines = errors_of(write("".join(f"key{number}: 1\n" for number in range(300))))
    assert len(lines) == 101
    assert lines[-1] == "mix.yaml: and 203 more errors; is this a mix config at all?"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
KEYS = st.sampled_from([*MixConfig.model_fields, *DatasetConfig.model_fields, "a", "<<"]) | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(changes=st.dictionaries(st.sampled_from([*MixConfig.model_fields]), VALUES, min_size=1))
def test_no_config_escapes_with_another_error(write, changes):
    base = yaml.safe_load(GOOD)
    for content in (yaml.safe_dump(base | changes), json.dumps(base | changes)):
        with contextlib.suppress(UsageError):
            config = load_config(write(content))
            train = [budget.train for budget in config.budgets().values()]
            assert min(train) > 0
            assert config.total_tokens in (None, sum(train))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(key=st.text(max_size=8) | st.sampled_from(["name", "seed", "datasets", "datasets.german.share"]), value=VALUES)
def test_no_override_escapes_with_another_error(write, key, value):
    with contextlib.suppress(UsageError):
        assert load_config(write(), overrides={key: value}).total_tokens


# --- The module and its document --------------------------------------------------------------------------------------


def test_importing_and_loading_does_not_import_beam():
    code = (
        "import sys; from beam_pipelines.config.mix import load_config; "
        f"load_config({str(MIXES / 'demo.yaml')!r}); print('apache_beam' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_document_lists_every_key_and_its_default():
    text = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    rows = {name: re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|", body, re.M) for name, body in sections(text).items()}
    models: dict[str, type[BaseModel]] = {
        "Top level": MixConfig,
        "`tokenizer`": TokenizerConfig,
        "`records`": RecordsConfig,
        "`shards`": ShardsConfig,
        "`datasets.NAME`": DatasetConfig,
        "`datasets.NAME.source`, a hub dataset": HubDataset,
    }
    for title, model in models.items():
        assert [key for key, _ in rows[title]] == list(model.model_fields)
        for key, default in rows[title]:
            field = model.model_fields[key]
            assert (default == "required") == field.is_required(), (title, key)
            if isinstance(field.default, bool | int | str) and key != "target_size":
                assert default == f"`{json.dumps(field.default)}`".replace('"', ""), (title, key)


def sections(text):
    parts = re.split(r"^### (.*)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_documents_example_and_errors_are_real(write):
    text = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    example, *_, errors = re.findall(r"^```(?:yaml)?\n(.*?)^```$", text, re.M | re.S)
    assert load_config(write(example)).budgets() == {
        "german": DatasetBudget(1_334_000_000, 10**6),
        "english": DatasetBudget(666_000_000, 10**6),
    }
    broken = """\
name: my-mix
tokenizer:
  path: gpt2
total_tokens: 2B
records: {max_token: 4096}
datasets:
  german: {share: 66.6%, source: german/*.parquet}
  english: {share: 33.3%, source: english/*.parquet}
"""
    assert errors_of(write(broken)) == errors.splitlines()
