"""`--target local` with the real MaxText: a run is trained, gone on with and exported."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from launch.config.training import load_training_config
from launch.export.check import check_export, maxtext_logits
from launch.export.run import export_run
from launch.maxtext.checkpoints import checkpoint_steps
from tests.support.command import run_command
from tests.support.local_training import EOS, LENGTH, config_file, data, history, trainer
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.listing import list_files

pytestmark = pytest.mark.slow

__all__ = ["data", "trainer"]

# It has to be in no file.
TOKEN = "hf_0123456789secret"


@pytest.fixture(scope="module", autouse=True)
def variables() -> Iterator[None]:
    """Sets variables that no trainer may see, throughout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setenv("M_STEPS", "2")
        yield


@pytest.fixture(scope="module")
def trained(variables: None, data: Path, trainer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps that was started twice: for the first 6, and for the rest."""
    output = tmp_path_factory.mktemp("trained")
    for steps in (6, 12):
        ended = run_command("train", config_file(data, output, steps=steps), timeout=600)
        assert ended.returncode == 0, ended.stderr
    return output


def test_a_run_goes_on_from_its_checkpoint_and_the_loss_falls(trained):
    found = history(trained)
    assert [step.number for step in found.steps] == list(range(12))
    assert [step.start for step in found.steps] == [0] * 6 + [1] * 6
    assert checkpoint_steps(str(trained / "run"))[-1] == 11
    losses = [step.loss for step in found.steps]
    # It begins at about the logarithm of the vocabulary.
    assert 5.5 < losses[0] < 7.5
    assert losses[-1] < losses[6] < losses[0] - 1
    assert all(0 < step.tokens <= 8 * (LENGTH - 1) + 8 for step in found.steps)
    assert (trained / "run" / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_writes_no_token_down(trained):
    written = [path for path in (trained / "run").rglob("*") if path.is_file()]
    assert any("tfevents" in path.name for path in written)
    assert [path for path in written if TOKEN.encode() in path.read_bytes()] == []


def test_a_run_that_is_done_is_not_started_again(data, trained):
    before = history(trained).starts
    ended = run_command("train", config_file(data, trained, steps=12))
    assert ended.returncode == 0
    assert "all 12 steps are done" in ended.stderr
    assert "learning rate" in ended.stdout
    assert history(trained).starts == before


def test_status_and_logs_of_a_run_that_has_ended(data, trained):
    path = config_file(data, trained, steps=12)
    shown = run_command("train", path, "status").stdout
    assert "run: not running" in shown
    assert "last step    11 of 12: loss" in shown
    assert ", 11\n" in shown
    assert "ended early" not in shown
    assert "completed step: 11," in run_command("train", path, "logs", "--follow").stdout


def test_it_does_not_go_on_with_other_readers(data, trained):
    """Where it would read in another order, it says so."""
    path = config_file(data, trained, steps=20)
    refused = run_command("train", path, "--dry-run", "--set", "parameters.grain_worker_count=2")
    assert refused.returncode == 2
    assert "2 cannot go on from the checkpoint of step 11, which was written with 0" in refused.stderr
    warned = run_command("train", path, "--dry-run", "--set", "parameters.data_shuffle_seed=5")
    assert warned.returncode == 0
    assert "run: data_shuffle_seed: 5, and it was 0 up to the last checkpoint" in warned.stderr


def test_a_run_that_ends_early_has_failed_and_says_how_to_save_it(data, trainer, tmp_path):
    """The trainer gets larger batches than were checked, and so too little data."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {trainer} "$@" per_device_batch_size=96\n')
    python.chmod(0o755)
    path, own = config_file(data, tmp_path, steps=9), ("--set", f"local.python={python}")
    ended = run_command("train", path, *own, timeout=900)
    assert ended.returncode == 1
    last = history(tmp_path).steps[-1].number
    assert 3 < last < 8
    unsaved = f"steps 4 to {last} are not saved" if last > 4 else "step 4 is not saved"
    assert f"run: ended early, last step {last} of 9: the data has no more for a step; {unsaved}. " in ended.stderr
    assert f"or write `steps: {last + 1}`, which ends with a checkpoint" in ended.stderr
    shown = run_command("train", path, "status").stdout
    assert f"last step    {last} of 9: loss" in shown
    assert "ended early  the data has no more for a step\n" in shown
    assert f"checkpoints  0, 3; {unsaved}\n" in shown
    # With the steps that the message names, the last ones are saved.
    again = run_command("train", path, *own, "--set", f"parameters.steps={last + 1}", timeout=900)
    assert again.returncode == 0, again.stderr
    assert checkpoint_steps(str(tmp_path / "run"))[-1] == last


@pytest.fixture(scope="module")
def exported(data: Path, trained: Path) -> Path:
    """The export of that run's last step."""
    ended = run_command("train", config_file(data, trained, steps=12), "export", timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"run: exported to {trained}/run/huggingface/11\n"
    return trained / "run" / "huggingface" / "11"


def test_an_export_is_the_model_that_was_trained(data, trained, exported, tmp_path):
    path = config_file(data, trained, steps=12)
    folder = exported
    assert {file.name for file in folder.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert (folder / "tokenizer.json").read_bytes() == (data / "tokenizer" / "tokenizer.json").read_bytes()
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 10_000.0}
    assert (config["bos_token_id"], config["eos_token_id"]) == (None, EOS)
    assert config["max_position_embeddings"] == LENGTH
    assert weights(folder / "model.safetensors") == expected_weights()
    run = load_training_config(path)
    expected = maxtext_logits(run, step=None)
    check = check_export(expected, prompts=["Berlin ist"])
    assert check.model == "LlamaForCausalLM"
    assert check.difference < 1e-4
    assert check.scale > 0.1
    assert check.texts[0].startswith("Berlin ist")
    assert len(check.texts[0]) > len("Berlin ist")
    # The check is one: with other positions it is another model.
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    config["rope_parameters"]["rope_theta"] = 100.0
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(BroetchenError, match="is another model"):
        check_export(dataclasses.replace(expected, export=str(other)), prompts=[])


def test_an_export_of_a_step_that_has_no_checkpoint(data, trained):
    ended = run_command("train", config_file(data, trained, steps=12), "export", "--step", "1")
    assert ended.returncode == 1
    assert "has no checkpoint of step 1; there is one of " in ended.stderr


def test_a_checkpoint_in_a_bucket_is_exported_into_the_bucket(data, trained, exported, gcs_prefix, tmp_path):
    run = trained / "run"
    sources = [
        *(path for path in (run / "checkpoints" / "11").rglob("*") if path.is_file()),
        *(path for path in (data / "tokens").rglob("*.json")),
    ]
    for path in sources:
        below = f"training/run/{path.relative_to(run)}" if path.is_relative_to(run) else str(path.relative_to(data))
        storage.write_bytes(f"{gcs_prefix}/{below}", path.read_bytes())
    content = yaml.safe_load(config_file(data, tmp_path).read_text())
    content |= {"output": f"{gcs_prefix}/training", "data": {"outputs": f"{gcs_prefix}/tokens"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    target = f"{gcs_prefix}/training/run/huggingface/11"
    assert export_run(load_training_config(tmp_path / "run.yaml")) == target
    assert [path for path, _ in list_files(target, "*")] == [
        f"{target}/{path.name}" for path in sorted(exported.iterdir())
    ]
    for path in exported.iterdir():
        found = storage.read_bytes(f"{target}/{path.name}")
        if path.suffix == ".json":
            assert json.loads(found) == json.loads(path.read_bytes())
        else:
            assert found == path.read_bytes()


def weights(path: Path) -> dict[str, list[int]]:
    """The shapes in a safetensors file: a length of 8 bytes, and JSON of that length."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


def expected_weights() -> dict[str, list[int]]:
    width, inner, queries, keys = 64, 96, 4 * 16, 2 * 16
    layer = {
        "input_layernorm": [width],
        "mlp.down_proj": [width, inner],
        "mlp.gate_proj": [inner, width],
        "mlp.up_proj": [inner, width],
        "post_attention_layernorm": [width],
        "self_attn.k_proj": [keys, width],
        "self_attn.o_proj": [width, queries],
        "self_attn.q_proj": [queries, width],
        "self_attn.v_proj": [keys, width],
    }
    shapes = {f"model.layers.{number}.{name}.weight": shape for number in (0, 1) for name, shape in layer.items()}
    ends = {"lm_head.weight": [512, width], "model.embed_tokens.weight": [512, width], "model.norm.weight": [width]}
    return shapes | ends
