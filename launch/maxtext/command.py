"""A training job as MaxText's command: `python -m maxtext.trainers.pre_train.train CONFIG KEY=VALUE…`.

MaxText reads the values as YAML, by OmegaConf (`pyconfig.initialize`, 0.2.5): `argument` writes text so that it comes
out as it was, whatever is in it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from launch.job import JobFile, TrainingJob, Value
from transforms.errors import UsageError
from transforms.quantities import shown

TRAINER = "maxtext.trainers.pre_train.train"
"""The module that trains."""

FILES = "{files}"
"""Stands for the folder of the job's files in its parameters."""

# How MaxText finds its own base.yml from any folder, where it is installed as a package (`resolve_config_path`).
_BASE = "src/maxtext/configs/base.yml"

# Text that YAML takes for text, without quotes: no number starts so, and no other word than these means something.
_PLAIN = re.compile(r"(?:[A-Za-z/]|\.\.?/)(?:[A-Za-z0-9_./@%+-]|:(?=/))*")
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})

# The prefix of variables that override parameters not on the command line (`yaml_key_to_env_key`).
_OVERRIDE = "M_"
# The variable that it takes for `hf_access_token`, and writes with all its parameters, in clear, into TensorBoard's
# files (`add_config_to_summary_writer`).
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
    """The arguments of `python` on the command line of a job whose files are in `files_folder`."""
    before = (str(_placed(word, files_folder)) for word in job.before)
    return (*before, "-m", TRAINER, *config_arguments(job, files_folder))


def config_arguments(job: TrainingJob, files_folder: str) -> tuple[str, ...]:
    """`CONFIG KEY=VALUE…`, which all of MaxText's programs take: the trainer, and others that load its models.

    CONFIG is the first of the job's files that is one.
    """
    config = next((posixpath.join(files_folder, file.name) for file in job.files if file.name.endswith(".yml")), _BASE)
    return (config, *(argument(key, _placed(value, files_folder)) for key, value in job.parameters.items()))


def config_file(name: str, base: str, parameters: Mapping[str, Value], purpose: str) -> JobFile:
    """A config of MaxText's over another one, for texts that are too long for a command line.

    Args:
        name: of the file, which ends with `.yml`.
        base: the name of the file below it, in the same folder, or of one of MaxText's own.
        parameters: by their names.
        purpose: of the file, for people.

    Raises:
        UsageError: a text has `${`, which OmegaConf would replace.
    """
    # OmegaConf reads the values of a command line as it reads those of a file.
    lines = (argument(key, value).partition("=") for key, value in {"base_config": base, **parameters}.items())
    return JobFile(name, "".join(f"{key}: {value}\n" for key, _, value in lines), purpose)


def _placed(value: Value, files_folder: str) -> Value:
    if isinstance(value, str) and value.startswith(f"{FILES}/"):
        return posixpath.join(files_folder, value.removeprefix(f"{FILES}/"))
    return value


def trainer_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for the trainer: all variables but those `left_out`."""
    without = left_out(environment)
    return {name: value for name, value in environment.items() if name not in without}


def left_out(environment: Mapping[str, str]) -> list[str]:
    """The variables that a trainer must not get: those that would override parameters, and a token.

    The token it would write down; data and tokenizer are files, so that none is needed. Python's variables go as well:
    those of our own environment would mislead the trainer's.
    """
    return sorted({_TOKEN, *(name for name in environment if name.startswith((_OVERRIDE, "PYTHON")))})
