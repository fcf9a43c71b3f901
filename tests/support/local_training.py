"""Small runs of the real MaxText on this machine: a Llama on bytes, over the same documents as ids and as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from launch.local import environment
from launch.local.log import EventFolder, History
from tests.support.command import run_command
from tests.support.corpora import SAMPLES, documents_of, write_parquet
from tests.support.small_tokenizers import GPT2, added_token, byte_level

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


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents, a tokenizer with an id for each byte, the model file, and the ids built from them, in `tokens`."""
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
    (folder / "small.yml").write_text(yaml.safe_dump(MODEL))
    build_data(folder, "tokens")
    return folder


def build_data(folder: Path, outputs: str) -> None:
    """Builds the documents of `data` as `tokens`, as `text` or for an exact order, into a folder of that name."""
    formats = {
        "tokens": {"format": "tokens", "max_tokens": LENGTH, "add_eos": True},
        "text": {"format": "text"},
        "megatron": {"format": "megatron", "add_eos": True},
    }
    config = {
        "name": outputs,
        "tokenizer": {"path": "./tokenizer"},
        "records": formats[outputs],
        "datasets": {"german": {"source": f"{folder}/source/*.parquet", "tokens": 60_000}},
    }
    path = folder / f"{outputs}.yaml"
    path.write_text(yaml.safe_dump(config))
    built = run_command("build", path, "--output", folder / outputs, "--quiet")
    assert built.returncode == 0, built.stderr


def config_file(data: Path, output: Path, outputs: str = "tokens", **parameters: Any) -> Path:
    """A training config over the data, which writes into `output`/run.

    The trainer reads the data itself: each worker that would do it for it imports all of MaxText, as the trainer does.
    """
    content = {
        "name": "run",
        "data": {"outputs": str(data / outputs)} | ({"order": "exact"} if outputs == "megatron" else {}),
        "model": str(data / "small.yml"),
        "output": str(output),
        "parameters": {
            "steps": 6,
            "learning_rate": 0.01,
            "learning_rate_schedule_steps": 12,
            "per_device_batch_size": 8,
            "max_target_length": LENGTH,
            "grain_worker_count": 0,
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
    """The processes that train into `output`, by their command lines."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if "maxtext.trainers.pre_train.train" in words and f"base_output_directory={output}" in words:
            found.append(process.info["pid"])
    return found


@pytest.fixture(scope="module")
def trainer() -> Path:
    """The trainer's own environment, which is made where this machine has none yet."""
    return environment.trainer("cpu").ensure()
