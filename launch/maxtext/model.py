"""The meaning of the key `model` of a training config: a model file, shipped or the user's, or a model of MaxText's.

A model file is a config of MaxText's in YAML that begins from `base_config: base.yml`. It becomes MaxText's config
file, since its `model_name` is a closed list; all parameters of the command line are laid over it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from launch.config.training import TrainingConfig
from launch.job import JobFile, Value
from transforms.config.document import Problem
from transforms.errors import BroetchenError
from transforms.files import storage

MODELS = Path(__file__).parents[1] / "models"
"""The shipped model files."""

_SUFFIX = ".yml"  # MaxText takes no other for a config file
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Model:
    """A model as MaxText is told of it: by parameters, or by a config file."""

    parameters: Mapping[str, Value]
    files: tuple[JobFile, ...]


def shipped_models() -> list[str]:
    """The names of the shipped models."""
    return sorted(path.stem for path in MODELS.glob(f"*{_SUFFIX}"))


def find_model(config: TrainingConfig) -> Model:
    """The model of a config; a name that is none of the shipped ones is MaxText's to know.

    Raises:
        UsageError: the model file is not there, or is none.
    """
    name = config.model
    if name in shipped_models():
        content = (MODELS / f"{name}{_SUFFIX}").read_text(encoding="utf-8")
        return Model({}, (JobFile(f"{name}{_SUFFIX}", content, "the model, over MaxText's base.yml"),))
    if not name.endswith((".yml", ".yaml")):
        # The parameters of the config win over the model's own.
        return Model({"model_name": name, "override_model_config": True}, ())
    path = config.resolve(name)
    try:
        content = storage.read_bytes(path).decode()
        parsed = yaml.safe_load(content)
    except (BroetchenError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = f"is no model file: {' '.join(str(error).split())}"
        raise config.refusal([Problem(("model",), problem)]) from error
    if not isinstance(parsed, Mapping) or parsed.get("base_config") != "base.yml":
        problem = f"{path} does not begin from MaxText's own config; write `base_config: base.yml` into it"
        raise config.refusal([Problem(("model",), problem)])
    stem = storage.split(path)[1].rpartition(".")[0]
    file = f"{stem if _SAFE.fullmatch(stem) else 'model'}{_SUFFIX}"
    return Model({}, (JobFile(file, content, "the model, over MaxText's base.yml"),))
