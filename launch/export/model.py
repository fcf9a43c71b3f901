"""The model that an export is to be: the settings for MaxText's conversion, and the corrections after it.

`maxtext.checkpoint_conversion.to_huggingface` (0.2.5) maps the weights of models that it knows by name, and writes the
config of that model. A Llama-like model of any size has the mapping of llama3.1-8b, provided that RoPE turned
pairs of neighbours (`rope_type: llama3.1`): the mapping re-orders the rows of queries and keys from there, and would
make another model, without a word, of one whose RoPE turned halves (`rope_type: default`). The config is mended here,
since the conversion leaves Llama 3.1's context, special tokens and stretched RoPE in it.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tokenizers import Tokenizer

from launch.config.training import TrainingConfig
from launch.job import TrainingJob
from launch.maxtext.model import find_model
from launch.maxtext.settings import read as read_settings
from launch.maxtext.tokenizer import find_tokenizer
from launch.mixture.datasets import read_mixture
from transforms.errors import UsageError
from transforms.files import storage
from transforms.quantities import shown

# MaxText's name for a model whose sizes are all its own, and the one whose mapping fits it where it is like Llama.
_NO_NAME, _LLAMA = "default", "llama3.1-8b"
# The settings of a model that LlamaForCausalLM computes. MaxText has None and 0 for "no cap".
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
# The scaling of `rope_use_scale` (`LLaMARotaryEmbedding`), as transformers writes it.
_STRETCHED = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@dataclass(frozen=True)
class ExportedModel:
    """The part of a training config that decides an exported model.

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
    """A model to export.

    Raises:
        UsageError: the conversion would not give the model that was trained.
    """
    mixture = read_mixture(config.outputs(), config.data.datasets or ())
    tokenizer = find_tokenizer(config, mixture)
    model = find_model(config)
    job = TrainingJob(config.name, {**model.parameters, **config.parameters}, model.files)
    reading = read_settings(job, devices=1)
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


def conversion_job(model: ExportedModel) -> TrainingJob:
    """The model as the conversion has to be told of it: under a name whose mapping it has."""
    if model.settings["model_name"] != _NO_NAME:
        return model.job
    # The name brings that model's sizes, unless the command line has them.
    sizes = {key: model.settings[key] for key in _keys_of(_LLAMA)}
    # The only list is mlp_activations, which is as Llama's, or the model is not converted.
    own = {key: value for key, value in sizes.items() if not isinstance(value, list)}
    parameters = {**model.job.parameters, "model_name": _LLAMA, "override_model_config": True, **own}
    return dataclasses.replace(model.job, parameters=parameters)


def _keys_of(model_name: str) -> list[str]:
    text = importlib.resources.files("maxtext.configs").joinpath("models", f"{model_name}.yml").read_text("utf-8")
    return list(yaml.safe_load(text))


def write_tokenizer(model: ExportedModel, folder: Path) -> None:
    """Writes the tokenizer as it is; where nothing names its special tokens, a tokenizer_config.json that does."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if storage.exists(path := storage.join(model.tokenizer, name)):
            (folder / name).write_bytes(storage.read_bytes(path))
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


def write_config(model: ExportedModel, folder: Path) -> None:
    """Mends the config that the conversion has written into a folder, and writes the one for generation."""
    path = folder / "config.json"
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
    (folder / "generation_config.json").write_text(json.dumps(ids, indent=2) + "\n", encoding="utf-8")
