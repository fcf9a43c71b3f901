"""A training config as MaxText's command: `python -m maxtext.trainers.pre_train.train CONFIG KEY=VALUE…`.

MaxText reads the values as YAML, by OmegaConf (`pyconfig.initialize`, 0.2.5): `argument` writes text so that it comes
out as it was, whatever is in it.
"""

from __future__ import annotations

import logging
import posixpath
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch import maxtext_schema, training_checks
from launch.job import JobFile, Place, TrainingJob, Value
from launch.mixture import Shares
from launch.mixture_file import Mixture, eval_files, mixture_json, read_components, train_mixture
from launch.model_file import find_model, shipped_models
from launch.training_config import SET_BY, TrainingConfig
from launch.training_tokenizer import find_tokenizer
from transforms.config_document import Loc, Problem
from transforms.errors import UsageError
from transforms.quantities import shown

_LOGGER = logging.getLogger(__name__)

TRAINER = "maxtext.trainers.pre_train.train"
"""The module that trains."""

FILES = "{files}"
"""Stands for the folder of the job's files in its parameters."""

MIXTURE = "mixture.json"
"""The job's file with the mixture."""

# How MaxText finds its own base.yml from any folder, where it is installed as a package (`resolve_config_path`).
_BASE = "src/maxtext/configs/base.yml"

# Text that YAML takes for text, without quotes: no number starts so, and no other word than these means something.
_PLAIN = re.compile(r"(?:[A-Za-z/]|\.\.?/)(?:[A-Za-z0-9_./@%+-]|:(?=/))*")
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})

# What overrides parameters that are not on the command line (`yaml_key_to_env_key`).
_OVERRIDE = "M_"
# What it takes for `hf_access_token`, and writes with all its parameters, in clear, into TensorBoard's files
# (`add_config_to_summary_writer`).
_TOKEN = "HF_TOKEN"


def argument(key: str, value: Value) -> str:
    """`key=value` as MaxText reads it from its command line.

    >>> argument("steps", 5), argument("packing", True), argument("run_name", "a"), argument("run_name", "1e5")
    ('steps=5', 'packing=true', 'run_name=a', 'run_name="1e5"')

    Raises:
        UsageError: the value has `${`, which OmegaConf would replace.
    """
    if isinstance(value, bool):
        return f"{key}={str(value).lower()}"
    if not isinstance(value, str):
        return f"{key}={value!r}"
    if "${" in value:
        raise UsageError(f"{key}: {shown(value)} has `${{`, which MaxText would replace; rename it")
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return f"{key}={value}"
    return f'{key}="{"".join(map(_escaped, value))}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def arguments(job: TrainingJob, files_folder: str) -> tuple[str, ...]:
    """What follows `python` on the command line of a job whose files are in `files_folder`."""
    config = next((posixpath.join(files_folder, file.name) for file in job.files if file.name.endswith(".yml")), _BASE)
    return ("-m", TRAINER, config, *parameter_arguments(job.parameters, files_folder))


def parameter_arguments(parameters: Mapping[str, Value], files_folder: str) -> tuple[str, ...]:
    """The parameters as they stand on the command line."""
    return tuple(argument(key, _placed(value, files_folder)) for key, value in parameters.items())


def _placed(value: Value, files_folder: str) -> Value:
    if isinstance(value, str) and value.startswith(f"{FILES}/"):
        return posixpath.join(files_folder, value.removeprefix(f"{FILES}/"))
    return value


def trainer_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for the trainer: without what overrides parameters, and without a token that it would write down.

    Data and tokenizer are files, so that no token is needed.
    """
    return {name: value for name, value in environment.items() if not name.startswith(_OVERRIDE) and name != _TOKEN}


@dataclass(frozen=True)
class CheckedJob:
    """A job that can go well, and all of MaxText's settings for it by name, derived ones included."""

    job: TrainingJob
    settings: Mapping[str, Any]


def job_of(config: TrainingConfig, place: Place, devices: int, extra: Mapping[str, Value] | None = None) -> TrainingJob:
    """The job of a config, by `checked_job`."""
    return checked_job(config, place, devices, extra).job


def checked_job(
    config: TrainingConfig, place: Place, devices: int, extra: Mapping[str, Value] | None = None
) -> CheckedJob:
    """The job of a config: checked against MaxText's schema and against the data, before anything is paid for.

    Takes some four seconds, as MaxText itself reads the command, in a process of its own. Warnings are logged.

    Args:
        config: the run.
        place: the file systems of the machines that train.
        devices: how many accelerators train, all machines together: MaxText's batch sizes are per device.
        extra: parameters that the target needs; they win over the config's.

    Raises:
        UsageError: the config asks for what MaxText does not know, or for what does not go with the data.
        BroetchenError: an output has no finished dataset, or a file cannot be read.
    """
    with config.blamed("data"):
        mixture = read_components(config.outputs(), config.data.datasets or ())
    with config.blamed("data", "shares"):
        shares = mixture.shares(config.data.shares)
    tokenizer = find_tokenizer(config, mixture)
    model = find_model(config)
    with config.blamed("output"):
        output = _output(config, place)
    with config.blamed("data" if config.tokenizer is None else "tokenizer"):
        tokenizer_path = place.locate(tokenizer.folder)
    with config.blamed("data"):
        data = _data_parameters(config, mixture, shares, place)
        weights = mixture_json(train_mixture(mixture.components, shares, place))
    settled: dict[str, Value] = {
        "run_name": config.name,
        "base_output_directory": output,
        **model.parameters,
        **data,
        "tokenizer_type": "huggingface",
        "tokenizer_path": tokenizer_path,
    }
    job = TrainingJob(
        name=config.name,
        parameters=settled | dict(config.parameters) | dict(extra or {}),
        files=(*model.files, JobFile(MIXTURE, weights, "the mixture's weights")),
    )
    settings = _settings(config, job, devices)
    found = list(
        training_checks.findings(config.parameters, settings, mixture, shares, tokenizer, evaluates=config.data.eval)
    )
    for finding in found:
        if not finding.fatal:
            _LOGGER.warning("%s: %s: %s", config.name, finding.key, finding.what)
    if problems := [Problem(_loc(finding.key), finding.what) for finding in found if finding.fatal]:
        raise config.refusal(problems)
    return CheckedJob(job, settings)


def _settings(config: TrainingConfig, job: TrainingJob, devices: int) -> Mapping[str, Any]:
    """All of MaxText's settings, as it reads the job's command itself."""
    with tempfile.TemporaryDirectory(prefix="broetchen-") as folder:
        for file in job.files:
            Path(folder, file.name).write_text(file.content, encoding="utf-8")
        with config.blamed("data"):  # a folder's name that MaxText would read otherwise
            _, _, *given = arguments(job, folder)
        reading = maxtext_schema.read(given, job.parameters, devices)
    if reading.problems:
        # A name that MaxText does not know may be meant for one of ours.
        ours = f"; launch/models has {', '.join(shipped_models())}" if "model_name" in job.parameters else ""
        raise config.refusal(
            [Problem(_loc(key), what + ours * (key == "model_name")) for key, what in reading.problems]
        )
    return reading.settings


def _loc(key: str | None) -> Loc:
    """Where the config has what became a parameter."""
    if key is None or key == "tokenizer":
        return (key or "parameters",)
    return tuple(SET_BY[key].split(".")) if key in SET_BY else ("parameters", key)


def _output(config: TrainingConfig, place: Place) -> str:
    """MaxText writes gs:// itself; a mounted bucket is for reading."""
    output = config.output_directory()
    return output if output.startswith("gs://") else place.locate(output)


def _data_parameters(config: TrainingConfig, mixture: Mixture, shares: Shares, place: Place) -> dict[str, Value]:
    """What of MaxText's parameters follows from the data; the config may say otherwise of the last ones."""
    text = mixture.records.format == "text"
    evaluation = {"grain_eval_files": eval_files(mixture.components, shares, place)} if config.data.eval else {}
    return {
        "dataset_type": "grain",
        "grain_file_type": "arrayrecord",
        "grain_train_mixture_config_path": f"{FILES}/{MIXTURE}",
        **evaluation,
        "tokenize_train_data": text,
        "tokenize_eval_data": text,
        # Ids have their BOS and EOS; to texts MaxText adds them, EOS as mixes mostly have it.
        "add_bos": False,
        "add_eos": text,
        # Texts that are longer than a sequence are cut into several, not cut off.
        **({"use_truncation": False} if text else {}),
    }
