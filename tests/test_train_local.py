"""`--target local` with the real MaxText: a small Llama on bytes is trained, stopped, gone on with and exported."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from launch import python_environment
from launch.checkpoints import checkpoint_steps
from launch.export import export_run
from launch.export_check import check_export
from launch.exported_model import exported_model
from launch.model_file import shipped_models
from launch.training_config import load_training_config
from launch.training_log import EventFolder, History
from tests.command import COMMAND, run_command, run_on_terminal
from tests.corpora import SAMPLES, documents_of, write_parquet
from tests.small_tokenizers import GPT2, added_token, byte_level
from transforms import files
from transforms.errors import BroetchenError, UsageError

LENGTH = 128
EOS, PAD = 256, 257
MODEL: dict[str, Any] = {
    "base_config": "base.yml",
    "decoder_block": "llama2",
    "base_num_decoder_layers": 2,
    "base_emb_dim": 64,
    "base_mlp_dim": 96,
    "base_num_query_heads": 4,
    "base_num_kv_heads": 2,
    "head_dim": 16,
    "mlp_activations": ["silu", "linear"],
    "enable_dropout": False,
    "vocab_size": 512,
    "logits_via_embedding": False,
    "rope_max_timescale": 10_000,
    "rope_type": "llama3.1",
    "rope_use_scale": False,
    "max_target_length": LENGTH,
}
# It has to be in no file.
TOKEN = "hf_0123456789secret"
# Longer than any test waits.
ENDLESS: dict[str, Any] = {
    "steps": 1_000_000,
    "num_epoch": 1_000_000,
    "checkpoint_period": 5,
    "max_num_checkpoints_to_keep": 2,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same documents as ids and as text, of a tokenizer with an id for each byte, and the model file."""
    folder = tmp_path_factory.mktemp("data")
    documents = documents_of((SAMPLES / "corpora" / "fineweb2_german").glob("*.parquet"))
    write_parquet(folder / "source" / "0.parquet", [documents[:60], documents[60:120]])
    (folder / "tokenizer").mkdir()
    special = [added_token(EOS, "<|eos|>"), added_token(PAD, "<|pad|>")]
    (folder / "tokenizer" / "tokenizer.json").write_text(
        json.dumps(byte_level(added_tokens=special) | {"decoder": GPT2})
    )
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|eos|>", "pad_token": "<|pad|>"}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(named))
    formats = {"tokens": {"format": "tokens", "max_tokens": LENGTH, "add_eos": True}, "text": {"format": "text"}}
    for name, records in formats.items():
        config = {
            "name": name,
            "tokenizer": {"path": "./tokenizer"},
            "records": records,
            "datasets": {"german": {"source": f"{folder}/source/*.parquet", "tokens": 60_000}},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
        built = run_command("build", folder / f"{name}.yaml", "--output", folder / name, "--quiet")
        assert built.returncode == 0, built.stderr
    (folder / "small.yml").write_text(yaml.safe_dump(MODEL))
    return folder


def config_file(data: Path, output: Path, outputs: str = "tokens", **parameters: Any) -> Path:
    """A training config over the data, which writes into `output`/run."""
    content = {
        "name": "run",
        "data": {"outputs": str(data / outputs)},
        "model": str(data / "small.yml"),
        "output": str(output),
        "parameters": {
            "steps": 6,
            "learning_rate": 0.01,
            "learning_rate_schedule_steps": 12,
            "per_device_batch_size": 8,
            "max_target_length": LENGTH,
            "grain_worker_count": 1,
            "checkpoint_period": 3,
            "async_checkpointing": False,
        }
        | parameters,
    }
    path = output / "run.yaml"
    output.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def history(output: Path) -> History:
    return EventFolder(output / "run" / "tensorboard" / "run").read()


def trainers(output: Path) -> list[int]:
    """The processes that train into `output`, by what is on their command lines."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if "maxtext.trainers.pre_train.train" in words and f"base_output_directory={output}" in words:
            found.append(process.info["pid"])
    return found


@pytest.fixture(scope="module")
def trainer() -> Path:
    """The trainer's own environment, which is made where this machine has none yet."""
    return python_environment.trainer("cpu").ensure()


@pytest.fixture(scope="module")
def trained(data: Path, trainer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps that was started twice: for the first 6, and for the rest."""
    output = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setenv("M_STEPS", "2")
        for steps in (6, 12):
            ended = run_command("train", config_file(data, output, steps=steps), timeout=600)
            assert ended.returncode == 0, ended.stderr
    return output


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_run_writes_no_token_down(trained):
    written = [path for path in (trained / "run").rglob("*") if path.is_file()]
    assert any("tfevents" in path.name for path in written)
    assert [path for path in written if TOKEN.encode() in path.read_bytes()] == []


@pytest.mark.slow
def test_a_run_that_is_done_is_not_started_again(data, trained):
    before = history(trained).starts
    ended = run_command("train", config_file(data, trained, steps=12))
    assert ended.returncode == 0
    assert "all 12 steps are done" in ended.stderr
    assert "learning rate" in ended.stdout
    assert history(trained).starts == before


@pytest.mark.slow
def test_status_and_logs_of_a_run_that_has_ended(data, trained):
    path = config_file(data, trained, steps=12)
    shown = run_command("train", path, "status").stdout
    assert "run: not running" in shown
    assert "last step    11: loss" in shown
    assert ", 11\n" in shown
    assert "completed step: 11," in run_command("train", path, "logs", "--follow").stdout


@pytest.fixture(scope="module")
def exported(data: Path, trained: Path) -> Path:
    """The export of that run's last step."""
    ended = run_command("train", config_file(data, trained, steps=12), "export", timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"run: exported to {trained}/run/huggingface/11\n"
    return trained / "run" / "huggingface" / "11"


@pytest.mark.slow
def test_an_export_is_the_model_that_was_trained(data, trained, exported):
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
    check = check_export(run, step=None, prompts=["Berlin ist"])
    assert check.model == "LlamaForCausalLM"
    assert check.difference < 1e-4
    assert check.scale > 0.1
    assert check.texts[0].startswith("Berlin ist")
    assert len(check.texts[0]) > len("Berlin ist")
    # The check is one: with other positions it is another model.
    config["rope_parameters"]["rope_theta"] = 100.0
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BroetchenError, match="is another model"):
        check_export(run, step=None, prompts=[])
    config["rope_parameters"]["rope_theta"] = 10_000.0
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.slow
def test_a_checkpoint_in_a_bucket_is_exported_into_the_bucket(data, trained, exported, gcs_prefix, tmp_path):
    run = trained / "run"
    sources = [
        *(path for path in (run / "checkpoints" / "11").rglob("*") if path.is_file()),
        *(path for path in (data / "tokens").rglob("*.json")),
    ]
    for path in sources:
        below = f"training/run/{path.relative_to(run)}" if path.is_relative_to(run) else str(path.relative_to(data))
        files.write_bytes(f"{gcs_prefix}/{below}", path.read_bytes())
    content = yaml.safe_load(config_file(data, tmp_path).read_text())
    content |= {"output": f"{gcs_prefix}/training", "data": {"outputs": f"{gcs_prefix}/tokens"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    target = f"{gcs_prefix}/training/run/huggingface/11"
    assert export_run(load_training_config(tmp_path / "run.yaml")) == target
    assert [path for path, _ in files.list_files(f"{target}/*")] == [
        f"{target}/{path.name}" for path in sorted(exported.iterdir())
    ]
    for path in exported.iterdir():
        found = files.read_bytes(f"{target}/{path.name}")
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


@pytest.mark.slow
def test_an_export_of_a_step_that_has_no_checkpoint(data, trained):
    ended = run_command("train", config_file(data, trained, steps=12), "export", "--step", "1")
    assert ended.returncode == 1
    assert "has no checkpoint of step 1; there is one of " in ended.stderr


@pytest.mark.slow
def test_ids_and_text_of_the_same_documents_train_alike(data, trainer, tmp_path):
    """In file order, as a shuffle depends on how many records there are; see docs/training-local.md."""
    losses = {}
    for name in ("tokens", "text"):
        output = tmp_path / name
        path = config_file(data, output, name, steps=3, enable_data_shuffling=False, enable_checkpointing=False)
        ended = run_command("train", path, timeout=600)
        assert ended.returncode == 0, ended.stderr
        losses[name] = [step.loss for step in history(output).steps]
    assert len(losses["tokens"]) == 3
    assert losses["tokens"] == pytest.approx(losses["text"], rel=5e-4)


@contextmanager
def started(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command, running; at the end its trainer is stopped too, which is in a session of its own."""
    with subprocess.Popen(
        [COMMAND, "train", path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def wait_for_steps(output: Path, process: subprocess.Popen[bytes], count: int) -> None:
    while len(history(output).steps) < count:
        assert process.poll() is None, (process.stdout.read() if process.stdout else b"").decode()
        time.sleep(0.2)


@pytest.mark.slow
def test_a_running_run_is_seen_protected_and_stopped(data, trainer, tmp_path):
    path = config_file(data, tmp_path, **ENDLESS)
    with started(path) as process:
        wait_for_steps(tmp_path, process, 7)
        assert "run: running, process " in run_command("train", path, "status").stdout
        second = run_command("train", path)
        assert second.returncode == 2
        assert "run is running already; `stop` it first" in second.stderr
        assert "run: stopped" in run_command("train", path, "stop").stdout
        shown, _ = process.communicate()
        assert process.returncode == 1
        assert b"the trainer was stopped by SIGTERM" in shown
    assert trainers(tmp_path) == []
    assert checkpoint_steps(str(tmp_path / "run"))[-1] >= 5
    assert "run: it is not running" in run_command("train", path, "stop").stdout


def living(group):
    """The processes of a group that have not ended; of those that have, nobody may have taken notice yet."""
    found = []
    for process in psutil.process_iter(["pid", "status"]):
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


@pytest.mark.slow
def test_ctrl_c_ends_the_trainer_and_a_run_survives_kill(data, trainer, tmp_path):
    path = config_file(data, tmp_path, **ENDLESS)
    code, shown = run_on_terminal("train", path, columns=160, interrupt_at="loss ")
    assert code == 130, shown
    assert trainers(tmp_path) == []
    steps = len(history(tmp_path).steps)
    assert steps
    # Killed without a chance to do anything, the command leaves a trainer that goes on; it can be seen and stopped.
    with started(path) as process:
        wait_for_steps(tmp_path, process, steps + 7)
        process.kill()
        process.wait()
        assert len(trainers(tmp_path)) >= 1
        running = re.search(r"run: running, process (\d+)", run_command("train", path, "status").stdout)
        assert running
        assert "run: stopped" in run_command("train", path, "stop").stdout
    assert trainers(tmp_path) == []
    assert living(group=int(running[1])) == []  # nor any worker of its own


@pytest.mark.slow
def test_a_trainer_that_fails_is_reported_with_the_end_of_its_log(data, tmp_path):
    path = config_file(data, tmp_path)
    content = yaml.safe_load(path.read_text())
    # A Python without MaxText.
    path.write_text(yaml.safe_dump(content | {"local": {"python": "/bin/false"}}))
    ended = run_command("train", path)
    assert ended.returncode == 1
    assert "the trainer ended with status 1; the whole log is in" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_dry_run_shows_a_script_and_leaves_nothing(data, tmp_path, monkeypatch):
    monkeypatch.setenv("BROETCHEN_CACHE", str(tmp_path / "cache"))
    output = tmp_path / "out"
    ended = run_command("train", config_file(data, output), "--dry-run")
    assert ended.returncode == 0, ended.stderr
    assert [path.name for path in output.iterdir()] == ["run.yaml"]
    environment = python_environment.trainer("cpu")
    assert f"--require-hashes --compile-bytecode -r {environment.lock}" in ended.stdout
    assert f"{environment.python} -m maxtext.trainers.pre_train.train {output}/run/job/small.yml" in ended.stdout
    checked = subprocess.run(["sh", "-n"], input=ended.stdout, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    # An environment that is there is not made again.
    environment.folder.mkdir(parents=True)
    (environment.folder / ".complete").touch()
    assert "--require-hashes" not in run_command("train", config_file(data, output), "--dry-run").stdout


def test_a_dry_run_can_be_pasted(data, tmp_path, monkeypatch):
    """What it runs sees the job's files, no token, and leaves its log where `logs` finds it."""
    python = tmp_path / "a python"
    python.write_text(f"#!{sys.executable}\nimport os, sys\nprint(*sys.argv[1:], os.environ, sep='\\n')\n")
    python.chmod(0o755)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("M_STEPS", "2")
    path, setting = config_file(data, tmp_path), f"local.python={python}"
    script = run_command("train", path, "--dry-run", "--set", setting).stdout
    done = subprocess.run(["sh", "-eu"], input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    shown = run_command("train", path, "logs", "--set", setting).stdout
    assert "maxtext.trainers.pre_train.train" in shown
    assert "'JAX_PLATFORMS': 'cpu'" in shown
    assert TOKEN not in shown
    assert "M_STEPS" not in shown
    assert (tmp_path / "run" / "job" / "mixture.json").exists()


def test_a_log_is_printed_to_the_letter(data, tmp_path):
    path = config_file(data, tmp_path)
    (tmp_path / "run").mkdir()
    text = "a" + "ö" * 100_000  # at any place that a block may end
    (tmp_path / "run" / "trainer.log").write_text(text, encoding="utf-8")
    assert run_command("train", path, "logs").stdout == text


def test_what_is_not_on_this_machine_is_refused(data, tmp_path):
    path = config_file(data, tmp_path)
    for setting, message in (
        ("output=gs://bucket/training", "keeps its checkpoints; name a folder (--set output=FOLDER)\n"),
        ("local.accelerator=gpu", "nvidia-smi finds no GPU here; write cpu"),
        ("local.python=/no/python", "local.python: /no/python is no program"),
    ):
        ended = run_command("train", path, "--set", setting)
        assert ended.returncode == 2, setting
        assert message in ended.stderr
    elsewhere = ("output=gs://bucket/training", "tpu_vm={accelerator: v6e-8, zone: europe-west4-a}")
    ended = run_command("train", path, *(word for setting in elsewhere for word in ("--set", setting)))
    assert "output: gs://bucket/training is not on this machine" in ended.stderr
    assert "name a folder (--set output=FOLDER), or give --target tpu-vm\n" in ended.stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [("rope_type", "default"), ("logits_via_embedding", True), ("decoder_block", "gemma"), ("use_qk_norm", True)],
)
def test_a_model_that_the_conversion_would_spoil_is_not_exported(data, tmp_path, key, value):
    config = load_training_config(config_file(data, tmp_path, **{key: value}))
    with pytest.raises(UsageError, match=f"only where they are like Llama, with {key}: "):
        exported_model(config)


def test_nothing_to_export_or_to_show(data, tmp_path):
    path = config_file(data, tmp_path)
    ended = run_command("train", path, "export")
    assert ended.returncode == 1
    assert "has no checkpoint; train first" in ended.stderr
    assert "was never started" in run_command("train", path, "logs").stderr
    assert run_command("train", path, "status").stdout.splitlines()[-1] == "checkpoints  none"
    assert "there are no machines to delete" in run_command("train", path, "delete").stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", shipped_models())
def test_the_shipped_models_can_be_exported(data, tmp_path, name):
    content = yaml.safe_load(config_file(data, tmp_path).read_text())
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content | {"model": name}))
    assert exported_model(load_training_config(tmp_path / "run.yaml")).settings["rope_use_scale"] is False
