"""The training config: the keys it takes, and the places of its errors."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import yaml

from launch.config.training import TrainingConfig, load_training_config
from transforms.errors import UsageError

CONFIGS = Path(__file__).parents[3] / "launch" / "configs"
CONFIG = """\
name: a-run
data:
  outputs: mix
model: nano-german-slm
output: ../training
parameters:
  steps: 10
  learning_rate: 6e-06
  per_device_batch_size: 0.5
  adam_eps: .1
  packing: false
  remat_policy: "1e5"
  run: 010
"""


def written(folder: Path, text: str = CONFIG, **replaced: str) -> Path:
    """A config file; `replaced` gives whole lines for those that begin with its keys."""
    lines = text.splitlines()
    for key, line in replaced.items():
        at = next(number for number, old in enumerate(lines) if old.strip().startswith(f"{key}:"))
        lines[at] = line
    path = folder / "run.yaml"
    path.write_text("\n".join(lines))
    return path


def test_numbers_are_numbers_and_quoted_text_is_text(tmp_path):
    config = load_training_config(written(tmp_path))
    assert dict(config.parameters) == {
        "steps": 10,
        "learning_rate": 6e-06,
        "per_device_batch_size": 0.5,
        "adam_eps": 0.1,
        "packing": False,
        "remat_policy": "1e5",
        "run": "010",
    }
    assert [type(value) for value in config.parameters.values()] == [int, float, float, float, bool, str, str]


def test_paths_start_at_the_config(tmp_path):
    folder = tmp_path / "configs"
    folder.mkdir()
    outputs = "  outputs: [mix, german=/data/mix/fineweb2, gs://bucket/a=b, x=gs://bucket/c]"
    config = load_training_config(written(folder, outputs=outputs))
    assert config.outputs() == (
        str(folder / "mix"),
        "german=/data/mix/fineweb2",
        "gs://bucket/a=b",
        "x=gs://bucket/c",
    )
    assert config.output_directory() == str(tmp_path / "training")
    assert config.tokenizer_folder() is None
    assert load_training_config(written(folder), overrides={"tokenizer": "tok"}).tokenizer_folder() == str(
        folder / "tok"
    )


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ("[30, 50.5, 20%]", (Fraction(30), Fraction(101, 2), Fraction(20))),
        ("{german: 2, english: 0.1%}", {"german": Fraction(2), "english": Fraction(1, 10)}),
    ],
)
def test_shares_are_exact(tmp_path, shares, expected):
    assert load_training_config(written(tmp_path), overrides={"data.shares": shares}).data.shares == expected


def test_overrides_are_read_as_the_file_is(tmp_path):
    config = load_training_config(
        written(tmp_path), overrides={"parameters.learning_rate": "1e-3", "data.eval": "true", "name": "b"}
    )
    assert (config.parameters["learning_rate"], config.data.eval, config.name) == (0.001, True, "b")


@pytest.mark.parametrize(
    ("key", "line", "message"),
    [
        ("name", "name: a/b", "run.yaml:1: name: \"a/b\" cannot name a folder"),
        ("name", "nam: a", "run.yaml:1: nam: is not a key that exists here; did you mean `name`?"),
        ("model", "model: ''", "run.yaml:4: model: \"\" is empty"),
        ("outputs", "  outputs: []", "run.yaml:3: data.outputs: [] is empty; add at least one output"),
        ("outputs", "  outputs: 5", "run.yaml:3: data.outputs: 5 is neither a path nor a list of paths"),
        ("outputs", "  outputs: mix\n  shares: [0, 1]", "run.yaml:4: data.shares: 0 is no share"),
        ("outputs", "  outputs: mix\n  shares: 5", "run.yaml:4: data.shares: 5 is neither a mapping"),
        ("outputs", "  outputs: mix\n  eval: 5", "run.yaml:4: data.eval: 5 is neither true nor false"),
        ("steps", "  run_name: a", "run.yaml:7: parameters.run_name: follows from `name`; remove it here"),
        ("steps", "  tokenizer_path: a", "run.yaml:7: parameters.tokenizer_path: follows from `tokenizer`"),
        ("steps", "  hf_access_token: hf_secret", "run.yaml:7: parameters.hf_access_token: is a secret"),
        ("steps", "  steps:", "run.yaml:7: parameters.steps: has no value"),
        ("steps", "  steps: [1]", "run.yaml:7: parameters.steps: [1] is a list or a mapping; put it into a model file"),
        ("steps", "  dtype: ${oc.env:HOME}", "run.yaml:7: parameters.dtype: \"${oc.env:HOME}\" has `${`"),
        ("steps", "  packing: true", "run.yaml:11: parameters.packing: is there twice, on lines 7 and 11"),
        ("parameters", "parameters: 5\nx:", "run.yaml:6: parameters: 5 is not a mapping"),
    ],
)  # fmt: skip
def test_an_error_says_where_and_what_to_do(tmp_path, key, line, message):
    with pytest.raises(UsageError) as error:
        load_training_config(written(tmp_path, **{key: line}))
    assert message in str(error.value)
    assert "hf_secret" not in str(error.value)


def test_all_errors_are_in_one_message_in_the_order_of_the_file(tmp_path):
    with pytest.raises(UsageError) as error:
        load_training_config(written(tmp_path, name="name: a b", steps="  run_name: x", model="modl: a"))
    keys = [line.split(": ")[1] for line in str(error.value).splitlines()]
    # The model is missing, which is said of the file's first line.
    assert keys == ["model", "name", "modl", "parameters.run_name"]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_configs_are_whole(path):
    config = load_training_config(path)
    assert isinstance(config, TrainingConfig)
    # Data in a bucket is for TPUs.
    assert all((config.tpu_vm is not None) == output.startswith("gs://") for output in config.outputs())
    assert (CONFIGS.parent / "models" / f"{config.model}.yml").exists()


def test_the_model_is_the_recipes():
    model = yaml.safe_load((CONFIGS.parent / "models" / "nano-german-slm.yml").read_text())
    recipe = {
        "decoder_block": "llama2",
        "base_num_decoder_layers": 12,
        "base_emb_dim": 768,
        "base_mlp_dim": 2048,
        "base_num_query_heads": 12,
        "base_num_kv_heads": 4,
        "head_dim": 64,
        "vocab_size": 65536,
        "rope_max_timescale": 10000,
        "logits_via_embedding": False,
        "max_target_length": 2048,
    }
    assert recipe.items() <= model.items()


def test_the_demo_is_the_recipes():
    parameters = load_training_config(CONFIGS / "demo.yaml").parameters
    recipe = {
        "grain_worker_count": 2,
        "learning_rate": 6e-06,
        "per_device_batch_size": 32,
        "gradient_accumulation_steps": 8,
        "steps": 1000,
        "max_target_length": 2048,
        "packing": True,
        "checkpoint_period": 500,
        "async_checkpointing": False,
    }
    assert dict(parameters) == recipe


def test_the_ablations_differ_in_their_data_alone():
    a, b = (load_training_config(CONFIGS / f"nano-ablation-{run}.yaml") for run in "ab")
    same = {"model", "output", "tokenizer", "parameters", "tpu_vm", "xpk", "local"}
    assert a.model_dump(include=same) == b.model_dump(include=same)
    assert a.data != b.data
    assert a.data.outputs == b.data.outputs
    for config in (a, b):
        assert isinstance(config.data.shares, dict)
        assert sum(config.data.shares.values()) == 100
