"""From a checkpoint of MaxText to a model of Hugging Face's format, by MaxText's own conversion.

`maxtext.checkpoint_conversion.to_huggingface` (0.2.5) maps the weights of models that it knows by name, and writes the
config of that model. What is Llama-like has the mapping of llama3.1-8b, whatever its sizes, provided that RoPE turned
pairs of neighbours (`rope_type: llama3.1`): the mapping re-orders the rows of queries and keys from there, and would
make another model, without a word, of one whose RoPE turned halves (`rope_type: default`). The config is mended here,
since the conversion leaves Llama 3.1's context, special tokens and stretched RoPE in it.
"""

from __future__ import annotations

import importlib.resources
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tokenizers import Tokenizer

from launch import maxtext_schema
from launch.job import TrainingJob, Value
from launch.maxtext_command import arguments, parameter_arguments, trainer_environment
from launch.mixture_file import read_components
from launch.model_file import find_model
from launch.python_environment import compiled_folder, last_lines
from launch.training_config import TrainingConfig
from launch.training_tokenizer import find_tokenizer
from transforms import files
from transforms.errors import BroetchenError, UsageError
from transforms.quantities import format_size, shown

_LOGGER = logging.getLogger(__name__)

_CONVERTER = "maxtext.checkpoint_conversion.to_huggingface"
_SHOWN_LINES = 20

# MaxText's name for a model whose sizes are all its own, and the one whose mapping fits it where it is like Llama.
_NO_NAME, _LLAMA = "default", "llama3.1-8b"
# What makes a model one that LlamaForCausalLM computes. MaxText has None and 0 for "no cap".
_LLAMA_SETTINGS: Mapping[str, tuple[Any, ...]] = {
    "decoder_block": ("llama2",),
    "mlp_activations": (["silu", "linear"],),
    "rope_type": ("llama3.1",),
    "rope_min_timescale": (1,),
    "attention_type": ("global",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_qk_norm": (False,),
    "attn_logits_soft_cap": (0, None),
    "final_logits_soft_cap": (0, None),
    "logits_via_embedding": (False,),
    "num_experts": (1,),
    "mtp_num_layers": (0,),
    "fused_qkv": (False,),
    "fused_mlp": (False,),
}
# What `rope_use_scale` stretches by (`LLaMARotaryEmbedding`), as transformers writes it.
_STRETCHED = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

# Orbax's mark of a checkpoint that is whole.
_COMMITTED = re.compile(r".*/checkpoints/(\d+)/commit_success\.txt")


def checkpoint_steps(run: str) -> list[int]:
    """The steps that a run has whole checkpoints of, by the run's folder, local or gs://…."""
    found = files.list_files(files.join(run, "checkpoints", "*", "commit_success.txt"))
    return sorted(int(match[1]) for path, _ in found if (match := _COMMITTED.fullmatch(path)))


@dataclass(frozen=True)
class ExportedModel:
    """What of a training config an exported model follows from.

    Attributes:
        job: MaxText's model file and parameters, without any data.
        settings: all of MaxText's settings.
        bos_id, eos_id: the tokenizer's, None where there is none.
        tokenizer: its folder, local or gs://….
    """

    job: TrainingJob
    settings: Mapping[str, Any]
    bos_id: int | None
    eos_id: int | None
    tokenizer: str


def exported_model(config: TrainingConfig) -> ExportedModel:
    """What is to be exported.

    Raises:
        UsageError: the conversion would not give the model that was trained.
    """
    mixture = read_components(config.outputs(), config.data.datasets or ())
    tokenizer = find_tokenizer(config, mixture)
    model = find_model(config)
    job = TrainingJob(config.name, {**model.parameters, **config.parameters}, model.files)
    with tempfile.TemporaryDirectory(prefix="broetchen-") as folder:
        _, _, *given = written_arguments(job, Path(folder))
        reading = maxtext_schema.read(given, job.parameters, 1)
    if reading.problems:
        key, what = reading.problems[0]
        raise UsageError(f"{config.name}: {key or 'parameters'} {what}")
    _check_convertible(config.name, reading.settings)
    return ExportedModel(
        job=job,
        settings=reading.settings,
        bos_id=mixture.records.bos_id if mixture.records.bos_id is not None else tokenizer.bos_id,
        eos_id=mixture.records.eos_id if mixture.records.eos_id is not None else tokenizer.eos_id,
        tokenizer=tokenizer.folder,
    )


def export_folder(config: TrainingConfig, step: int) -> str:
    """Where the export of a step is: beside the run's checkpoints."""
    return files.join(config.output_directory(), config.name, "huggingface", str(step))


def chosen_step(config: TrainingConfig, step: int | None) -> int:
    """The step to export: the one that was asked for, or the last.

    Raises:
        BroetchenError: there is no checkpoint of it.
    """
    run = files.join(config.output_directory(), config.name)
    steps = checkpoint_steps(run)
    if not steps:
        raise BroetchenError(f"{run} has no checkpoint; train first, with parameters.checkpoint_period below the steps")
    if step is not None and step not in steps:
        raise BroetchenError(f"{run} has no checkpoint of step {step}; there is one of {', '.join(map(str, steps))}")
    return steps[-1] if step is None else step


def export_checkpoint(config: TrainingConfig, step: int, python: Path) -> str:
    """Converts a checkpoint, and answers with the folder: config, weights and tokenizer.

    The folder appears whole where it is local; on gs://, config.json comes last. An older export of the step is
    replaced.

    Args:
        config: the run.
        step: of the checkpoint, which is there.
        python: the interpreter of an environment with MaxText.

    Raises:
        UsageError: MaxText's conversion does not fit the model.
        BroetchenError: it cannot be converted.
    """
    model = exported_model(config)
    target = export_folder(config, step)
    _LOGGER.info("%s: converts the checkpoint of step %d", config.name, step)
    local = files.is_local(target)
    if local:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, where it can be renamed to it.
    with tempfile.TemporaryDirectory(prefix=".export-", dir=Path(target).parent if local else None) as scratch:
        made = Path(scratch) / "model"
        tokenizer = _copy_tokenizer(model, Path(scratch) / "tokenizer")
        checkpoint = files.join(config.output_directory(), config.name, "checkpoints", str(step))
        _convert(model, _here(checkpoint, Path(scratch)), tokenizer, made, python, Path(scratch))
        shutil.copytree(tokenizer, made, dirs_exist_ok=True)
        _write_config(model, made)
        made.chmod(0o755)
        for path in made.iterdir():
            path.chmod(0o644)
        if local:
            shutil.rmtree(target, ignore_errors=True)
            made.rename(target)
        else:
            for path in sorted(made.iterdir(), key=lambda path: path.name == "config.json"):
                files.upload(str(path), files.join(target, path.name))
    return target


def written_arguments(job: TrainingJob, folder: Path) -> tuple[str, ...]:
    """Writes the job's files into `folder`; answers with what follows `python`."""
    for file in job.files:
        (folder / file.name).write_text(file.content, encoding="utf-8")
    return arguments(job, str(folder))


def _check_convertible(name: str, settings: Mapping[str, Any]) -> None:
    if settings["model_name"] != _NO_NAME:
        return  # MaxText's own model, which it knows or says that it does not
    for key, fitting in _LLAMA_SETTINGS.items():
        if settings[key] not in fitting:
            advice = " (the layout of the weights is another then)" if key == "rope_type" else ""
            raise UsageError(
                f"{name}: MaxText exports models of one's own only where they are like Llama, with {key}: "
                f"{shown(fitting[0])}{advice}; this one has {shown(settings[key])}"
            )


def _convert(model: ExportedModel, weights: Path, tokenizer: Path, made: Path, python: Path, scratch: Path) -> None:
    parameters = dict(model.job.parameters)
    named = model.settings["model_name"]
    if named == _NO_NAME:
        # The name brings that model's sizes, unless the command line has them.
        sizes = {key: model.settings[key] for key in _keys_of(_LLAMA)}
        parameters |= {"model_name": _LLAMA, "override_model_config": True, **dict(_values(sizes))}
    parameters |= {
        "load_parameters_path": str(weights),
        "base_output_directory": str(made),
        "hardware": "cpu",
        "skip_jax_distributed_system": True,
        "jax_cache_dir": compiled_folder(),
    }
    _, _, config_file, *_ = written_arguments(model.job, scratch)
    command = [
        str(python),
        *("-m", _CONVERTER, config_file, *parameter_arguments(parameters, str(scratch))),
        "--override_model_architecture",
        f"--hf_model_path={tokenizer}",
    ]
    log = scratch / "conversion.log"
    with log.open("wb") as output:
        ended = subprocess.run(
            command,
            cwd=scratch,
            env=program_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if ended.returncode or not (made / "config.json").exists():
        raise BroetchenError(f"MaxText could not convert {weights}:\n{last_lines(log, _SHOWN_LINES)}")


def program_environment() -> dict[str, str]:
    """The environment variables of a program that computes on the processor, and asks nothing of the hub."""
    kept = {name: value for name, value in trainer_environment(os.environ).items() if not name.startswith("PYTHON")}
    return kept | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}


def _keys_of(model_name: str) -> list[str]:
    text = importlib.resources.files("maxtext.configs").joinpath("models", f"{model_name}.yml").read_text("utf-8")
    return list(yaml.safe_load(text))


def _values(settings: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    for key, value in settings.items():
        # The only list is mlp_activations, which is as Llama's, or the model is not converted.
        if not isinstance(value, list):
            yield key, value


def _here(checkpoint: str, scratch: Path) -> Path:
    """The weights of a checkpoint on this machine: those on gs:// are copied, with what Beam reads them by."""
    if files.is_local(checkpoint):
        return Path(checkpoint, "items")
    copy = scratch / "checkpoint"
    found = files.list_files(files.join(checkpoint, "**"))
    _LOGGER.info("copies %s, %s", checkpoint, format_size(sum(size for _, size in found)))
    for path, _ in found:
        target = copy / path[len(checkpoint) :].lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.local_copy(path, str(scratch)) as part:
            shutil.move(part, target)
    return copy / "items"


def _copy_tokenizer(model: ExportedModel, folder: Path) -> Path:
    """The tokenizer as it is; where nothing names its special tokens, a tokenizer_config.json that does."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if files.exists(path := files.join(model.tokenizer, name)):
            (folder / name).write_bytes(files.read_bytes(path))
    if not (folder / "tokenizer_config.json").exists():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        named = {"bos_token": model.bos_id, "eos_token": model.eos_id}
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": model.settings["max_target_length"],
            "clean_up_tokenization_spaces": False,
            **{key: tokenizer.id_to_token(token_id) for key, token_id in named.items() if token_id is not None},
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return folder


def _write_config(model: ExportedModel, made: Path) -> None:
    path = made / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    settings = model.settings
    ids = {"bos_token_id": model.bos_id, "eos_token_id": model.eos_id}
    config |= {**ids, "pad_token_id": None}
    if settings["model_name"] == _NO_NAME:
        rope = _STRETCHED if settings["rope_use_scale"] else {"rope_type": "default"}
        config |= {
            "rope_parameters": {**rope, "rope_theta": float(settings["rope_max_timescale"])},
            "max_position_embeddings": settings["max_target_length"],
            "rms_norm_eps": settings["normalization_layer_epsilon"],
        }
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (made / "generation_config.json").write_text(json.dumps(ids, indent=2) + "\n", encoding="utf-8")
