"""The job of a training config: as MaxText itself reads it, and what is refused before anything starts."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from launch.checks.checked_job import CheckedJob, checked_job
from launch.config.training import load_training_config
from launch.job import Value
from launch.maxtext.command import arguments
from launch.places import Mounts
from tests.support.corpora import TOKENIZER
from tests.support.trainable_mixes import build_mix, training_config
from transforms.errors import BroetchenError, UsageError

HERE = Mounts({})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `mix`, of ids."""
    folder = tmp_path_factory.mktemp("trainable")
    build_mix(folder)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `mix`, of texts, and `tokenizer`, the same with a tokenizer_config.json."""
    folder = tmp_path_factory.mktemp("texts")
    mix = build_mix(folder, records={"format": "text"})
    tokenizer = next(mix.glob("tokenizer-*"))
    shutil.copytree(tokenizer, folder / "tokenizer")
    (folder / "tokenizer" / "tokenizer_config.json").write_text('{"eos_token": "<|eos|>", "pad_token": "<|bos|>"}')
    return folder


def checked(path: Path, extra: Mapping[str, Value] | None = None, devices: int = 4) -> CheckedJob:
    return checked_job(load_training_config(path), HERE, devices, extra)


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as error:
        checked(path)
    return str(error.value)


# --- Jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_maxtext_reads_the_job_as_it_was_meant(built, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv("M_STEPS", "12345")
    monkeypatch.setenv("M_LOG_PERIOD", "12345")
    folder = tmp_path / "a b'c\"$(touch x)\\`d`#é: {1}"
    shutil.copytree(built / "mix", folder / "mix")
    path = training_config(
        folder,
        {"eval_interval": 4, "eval_steps": 1, "base_mlp_dim": 1024, "checkpoint_period": 100},
        data={"outputs": "mix", "eval": True},
    )
    done = checked(path, extra={"hardware": "cpu"})
    settings = done.settings
    model = {
        "model_name": "default",
        "decoder_block": "llama2",
        "num_decoder_layers": 12,
        "emb_dim": 768,
        "mlp_dim": 1024,  # the config's, laid over the model's 2048
        "num_query_heads": 12,
        "num_kv_heads": 4,
        "head_dim": 64,
        "vocab_size": 65536,
        "rope_max_timescale": 10000,
        "logits_via_embedding": False,
        "mlp_activations": ["silu", "linear"],
    }
    data = {
        "dataset_type": "grain",
        "grain_file_type": "arrayrecord",
        "tokenize_train_data": False,
        "tokenize_eval_data": False,
        "add_bos": False,
        "add_eos": False,
        "tokenizer_type": "huggingface",
        "tokenizer_path": str(next((folder / "mix").glob("tokenizer-*"))),
    }
    run = {
        "run_name": "a-run",
        "base_output_directory": str(folder / "training"),
        "steps": 8,
        "learning_rate": 0.001,
        "max_target_length": 64,
        "global_batch_size_to_train_on": 16,
        "hardware": "cpu",
        "log_period": 100,
    }
    assert {key: settings[key] for key in model | data | run} == model | data | run
    assert arguments(done.job, "/files")[2] == "/files/nano-german-slm.yml"
    assert "grain_train_mixture_config_path=/files/mixture.json" in arguments(done.job, "/files")
    mixture = json.loads(next(file.content for file in done.job.files if file.name == "mixture.json"))
    assert mixture.keys() == {"german", "english"}
    assert all(Path(part["path"]).parent.is_dir() for part in mixture.values())
    evaluated = {part.split(",")[0].split("/")[-2] for part in settings["grain_eval_files"].split(";")}
    assert evaluated == {"german", "english"}
    assert "a-run: checkpoint_period: 100 is beyond the 8 steps" in caplog.text


@pytest.mark.slow
def test_a_model_of_maxtexts_takes_parameters_over_it(built):
    settings = checked(training_config(built, {"base_num_decoder_layers": 2}, model="llama3.1-8b")).settings
    assert (settings["num_decoder_layers"], settings["vocab_size"], settings["emb_dim"]) == (2, 128256, 4096)


@pytest.mark.slow
def test_a_model_file_of_ones_own(built):
    path = training_config(built, model="my model.yml")
    model = built / "my model.yml"
    model.write_text("base_config: base.yml\nbase_emb_dim: 128\nvocab_size: 65536\nmlp_activations: [gelu]\n")
    ours = checked(path).job
    assert [(file.name, file.content) for file in ours.files[:1]] == [("model.yml", model.read_text())]
    model.write_text("base_config: base.yml\nbase_emb_dimm: 128\n")
    said = refusal(path)
    assert f"run.yaml:{line_of(path, 'model')}: model: its file has `base_emb_dimm`, which is no parameter of" in said
    assert "did you mean `base_emb_dim`?" in said
    model.write_text("base_emb_dim: 128\n")
    said = refusal(path)
    assert f"run.yaml:{line_of(path, 'model')}: model: {model} does not begin from MaxText's own config" in said
    model.unlink()
    assert "model: is no model file: " in refusal(path)


@pytest.mark.slow
def test_texts_are_tokenized_whole_and_end_with_eos(texts):
    parameters = checked(training_config(texts, tokenizer="tokenizer")).job.parameters
    expected = {
        "tokenize_train_data": True,
        "tokenize_eval_data": True,
        "add_bos": False,
        "add_eos": True,
        "use_truncation": False,
        "tokenizer_path": str(texts / "tokenizer"),
    }
    assert {key: parameters[key] for key in expected} == expected


# --- Refusals ---------------------------------------------------------------------------------------------------------


def line_of(path: Path, key: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if line.strip().startswith(key))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "messages"),
    [
        (
            {"learning_rat": 1, "steps": 1.5, "dtype": "bfloat15", "async_checkpointing": "maybe"},
            [
                "learning_rat: is no parameter of MaxText 0.2.5; did you mean `learning_rate`?",
                "steps: 1.5 is not what MaxText 0.2.5 takes: input should be a valid integer",
                "dtype: \"bfloat15\" is not what MaxText 0.2.5 takes: input should be 'bfloat16'",
                'async_checkpointing: "maybe" is not what MaxText 0.2.5 takes: input should be a valid boolean',
            ],
        ),
        (
            {"vocab_size": 60000, "max_target_length": 32, "steps": 19},
            [
                "vocab_size: 60000 is smaller than the tokenizer's 65536",
                "max_target_length: 32 is shorter than records may be",
                "steps: 19 are more than the data has: a step takes 16 × 32 tokens",
            ],
        ),
    ],
)
def test_all_that_cannot_go_well_is_said_with_its_line(built, parameters, messages):
    path = training_config(built, parameters)
    said = refusal(path)
    for message in messages:
        key = message.partition(":")[0]
        assert f"run.yaml:{line_of(path, f'{key}:')}: parameters.{message}" in said


@pytest.mark.slow
def test_what_goes_with_nothing_else_is_refused_by_maxtext(built):
    said = refusal(training_config(built, {"use_tokamax_splash": True, "use_jax_splash": True}))
    assert "parameters: MaxText refuses them: At most one of `use_tokamax_splash` and `use_jax_splash`" in said


@pytest.mark.slow
def test_an_index_that_the_installed_reader_cannot_store_is_refused(built):
    """Tried on the reader itself: one of the two ways works with it, whatever its version."""
    said = refusal(training_config(built, {"grain_index_storage_option": "offloaded"}))
    assert "parameters.grain_index_storage_option: offloaded does not work with array_record 0.8.6" in said
    assert "footer_prefetch_bytes" in said
    taken = checked(training_config(built, {"grain_index_storage_option": "in_memory"})).settings
    assert taken["grain_index_storage_option"] == "in_memory"


@pytest.mark.slow
def test_maxtext_mixes_nothing_by_its_elastic_iterator(built):
    elastic = {"grain_use_elastic_iterator": True, "packing": False, "use_truncation": True}
    assert "does not support dataset mixtures" in refusal(training_config(built, elastic))


@pytest.mark.slow
def test_hosts_have_to_be_told_how_long_to_evaluate(built):
    path = training_config(built, {"eval_interval": 4}, data={"outputs": "mix", "eval": True})
    config = load_training_config(path)
    assert checked_job(config, HERE, 4).hosts == 1
    with pytest.raises(UsageError, match="eval_steps: is missing, and each of 2 hosts evaluates until its own data"):
        checked_job(config, HERE, 4, hosts=2)


@pytest.mark.slow
def test_a_model_that_nobody_has(built):
    said = refusal(training_config(built, model="llama3.1-8"))
    assert 'model: "llama3.1-8" is none of the 87 that MaxText 0.2.5 knows; did you mean llama3.1-8b or' in said
    assert "launch/models has nano-german-slm" in said


def test_a_folder_that_maxtext_would_read_otherwise_is_refused(built, tmp_path):
    folder = tmp_path / "${oc.env:HOME}"
    shutil.copytree(built / "mix", folder / "mix")
    assert "has `${`, which MaxText would replace; rename it" in refusal(training_config(folder))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"outputs": "mix", "shares": {"german": 1}}}, "data.shares: english has no share"),
        ({"data": {"outputs": "mix", "shares": [1, 2]}}, "data.shares: it is not certain which share is whose"),
        ({"data": {"outputs": "mix", "datasets": ["french"]}}, "data: there is no dataset french; there is "),
        ({"tokenizer": "nowhere"}, "tokenizer: there is no "),
        ({"tokenizer": "other"}, "is not the tokenizer that the datasets were built with"),
        ({"tokenizer": "packed/tokenizer.json.gz"}, "MaxText loads a folder with a tokenizer.json in it; unpack"),
    ],
)
def test_keys_beside_the_parameters_are_checked_too(built, changes, message):
    for folder in ("other", "packed"):
        (built / folder).mkdir(exist_ok=True)
    small = json.dumps({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}})
    (built / "other" / "tokenizer.json").write_text(small)
    (built / "packed" / "tokenizer.json.gz").write_bytes(gzip.compress(TOKENIZER.read_bytes()))
    assert message in refusal(training_config(built, **changes))


def test_datasets_that_are_not_there(built):
    with pytest.raises(BroetchenError, match="nowhere: no finished dataset here"):
        checked(training_config(built, data={"outputs": "nowhere"}))
