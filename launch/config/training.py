"""The training config: which datasets, which model, which parameters of MaxText, and where it may run.

A config is a YAML file (`docs/training.md` lists every key). `load_training_config` reads it from any filesystem that
Beam knows and checks its form; whether MaxText and the data agree with it is the matter of `launch.checks.findings`.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, PrivateAttr, WithJsonSchema

from launch.config.tpu import TpuVmConfig, XpkConfig
from launch.job import Value
from transforms.config.document import ConfigDocument, ConfigKind, Problem
from transforms.config.file import ConfigFile, open_document, section_of
from transforms.config.section import Name, Section, Text, mended, one_or_several
from transforms.errors import UsageError
from transforms.quantities import parse_percent, shown


class LocalConfig(Section):
    """How to train on this machine."""

    accelerator: Literal["cpu", "gpu"] = Field(
        default="cpu", description="The processor, or this machine's NVIDIA GPUs, all of them.", examples=["gpu"]
    )
    python: Text | None = Field(
        default=None,
        description="The interpreter of an environment with MaxText 0.2.5 in it, where there is one already, relative "
        "to the config. By default an environment is made, once.",
        examples=["/opt/maxtext/bin/python"],
    )


_KIND = ConfigKind(
    "training config",
    "launch/configs/demo.yaml",
    floats=True,
    keys=frozenset({"data", "model", "parameters"}),
    others=(
        (
            frozenset({"datasets", "total_tokens", "records", "shards"}),
            "is a mix config, which `broetchen build` takes; name a training config here, see docs/training.md",
        ),
    ),
)

SET_BY = {
    "run_name": "name",
    "base_output_directory": "output",
    "model_name": "model",
    "base_config": "model",
    "override_model_config": "model",
    "tokenizer_path": "tokenizer",
    "tokenizer_type": "tokenizer",
    "dataset_type": "data",
    "grain_file_type": "data",
    "grain_train_files": "data",
    "grain_train_mixture_config_path": "data",
    "grain_eval_files": "data",
    "blend_index_dir": "data",
    "blend_cache_dir": "data",
    "mmap_eod_id": "data",
    "mmap_npy_split": "data",
    "mmap_split_sentences": "data",
}
"""Parameters of MaxText that follow from other keys of the config."""

# A dataset's folder may have another name before it; a path with a scheme or a folder before its `=` has none.
_NAMED = re.compile(r"(?P<name>(?:[A-Za-z0-9][A-Za-z0-9._-]*=)?)(?P<path>.+)", re.DOTALL)

# MaxText prints its parameters, and a command line is there for all to see.
_SECRETS = frozenset({"hf_access_token"})


def _to_shares(value: Any) -> dict[str, Fraction] | tuple[Fraction, ...]:
    if isinstance(value, Mapping):
        return {name: _to_share(share) for name, share in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(_to_share, value))
    raise UsageError(
        f"{shown(value)} is neither a mapping of datasets to percentages nor a list of these; write "
        "{german: 60%, english: 40%}"
    )


def _to_share(value: Any) -> Fraction:
    if isinstance(value, int | float) and not isinstance(value, bool):
        # A float is taken as it was written: 0.1 is a tenth.
        share = Fraction(str(value)) if math.isfinite(value) else Fraction(0)
    else:
        share = parse_percent(value) * 100
    if share <= 0:
        raise UsageError(f"{shown(value)} is no share; write a number above 0, or leave the dataset out")
    return share


def _check_parameters(value: Any) -> dict[str, Value]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{shown(value)} is not a mapping; write `key: value` pairs, indented below it")
    return dict(value)


def _to_until(value: Any) -> Fraction:
    until = parse_percent(value)
    if not until:
        raise UsageError(f"{shown(value)} ends a phase where the training begins; write a part of it, such as 80%")
    return until


_ONE_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_ONE_SHARE: dict[str, Any] = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}

Outputs = Annotated[
    tuple[Text, ...],
    BeforeValidator(mended(one_or_several)),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [_ONE_TEXT, {"type": "array", "items": _ONE_TEXT, "minItems": 1}]}),
]
Shares = Annotated[
    dict[str, Fraction] | tuple[Fraction, ...],
    PlainValidator(mended(_to_shares)),
    WithJsonSchema(
        {"anyOf": [{"type": "object", "additionalProperties": _ONE_SHARE}, {"type": "array", "items": _ONE_SHARE}]}
    ),
]
Until = Annotated[Fraction, PlainValidator(mended(_to_until)), WithJsonSchema({"type": "string", "pattern": "%$"})]
Parameters = Annotated[
    dict[str, Value],
    PlainValidator(mended(_check_parameters)),
    WithJsonSchema(
        {"type": "object", "additionalProperties": {"anyOf": [{"type": t} for t in ("string", "number", "boolean")]}}
    ),
]


class PhaseConfig(Section):
    """A part of the training with shares of its own."""

    until: Until = Field(
        description="Where the phase ends, as a part of the training's sequences. Each ends after the one before it, "
        "the last at 100%.",
        examples=["80%"],
    )
    shares: Shares = Field(
        description="As `data.shares`, for this phase; a dataset that is not named is not in it.",
        examples=["{german: 60%, english: 40%}"],
    )


def _to_phases(value: Any) -> tuple[Any, ...]:
    if not _is_list(value) or not value:
        raise UsageError(f"{shown(value)} is no list of phases; write [{{until: 80%, shares: …}}, {{until: 100%, …}}]")
    return tuple(value)


Phases = Annotated[tuple[PhaseConfig, ...], BeforeValidator(mended(_to_phases))]


class DataConfig(Section):
    """The data to train on."""

    outputs: Outputs = Field(
        description="The outputs of builds, or single datasets in them, of any time and config. `NAME=` before a "
        "single dataset gives it another name.",
        examples=["gs://my-bucket/30-50-5-5-10"],
    )
    datasets: tuple[Text, ...] | None = Field(
        default=None,
        strict=False,
        description="Only these datasets of the outputs, in this order. All by default.",
        examples=["[fineweb2_german, finepdfs_german]"],
    )
    shares: Shares | None = Field(
        default=None,
        description="The part of the trained tokens that each dataset gets: numbers or percentages by name, or a list "
        "of them in the order of `datasets`. By default those that the datasets' own configs wanted. docs/mixture.md "
        "tells how exact they are, and which datasets go together.",
        examples=["{german: 60%, english: 40%}"],
    )
    order: Literal["drawn", "exact"] = Field(
        default="drawn",
        description="How the datasets are mixed. `drawn`: each host draws records by weights, from datasets of "
        "`records.format: tokens` or `text`. `exact`: an order of sequences that is written before the training, from "
        "datasets of `records.format: megatron`. docs/exact-order.md tells what each promises.",
        examples=["exact"],
    )
    phases: Phases | None = Field(
        default=None,
        strict=False,
        description="Instead of `shares`, with `order: exact`: parts of the training that follow each other, such as a "
        "curriculum or an annealing.",
        examples=["[{until: 80%, shares: {web: 100%}}, {until: 100%, shares: {web: 50%, books: 50%}}]"],
    )
    eval: bool = Field(
        default=False,
        description="Evaluate on the datasets' eval splits every `parameters.eval_interval` steps.",
        examples=["true"],
    )
    special_strings: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="Whether to train on texts (`records.format: text`) that hold the string of a special token, which "
        "MaxText takes for the token. `allow` also takes datasets of earlier versions, of which it is not known.",
        examples=["allow"],
    )

    @classmethod
    def _cross_checks(cls, given: Mapping[str, Any]) -> Iterator[Problem]:
        phases = given.get("phases")
        if phases is None:
            return
        if given.get("order") != "exact":
            yield Problem(
                ("phases",),
                "need an order that is exact; add `order: exact`, or train each phase as a run of its own: the later "
                "one with the checkpoint of the one before it (parameters.load_parameters_path)",
            )
        if "shares" in given:
            yield Problem(("shares",), "does not go with `phases`, each of which has shares of its own; remove it")
        untils = [phase.get("until") for phase in phases if isinstance(phase, Mapping)] if _is_list(phases) else []
        try:
            ends = [_to_until(until) for until in untils]
        except UsageError:
            return  # The phase itself says so.
        for before, end in itertools.pairwise(ends):
            if end <= before:
                yield Problem(("phases",), f"a phase ends at {shown_percent(end)}, and the one before it no earlier")
        if ends and ends[-1] != 1:
            yield Problem(("phases",), f"the last ends at {shown_percent(ends[-1])}; let it end at 100%")


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def shown_percent(part: Fraction) -> str:
    """A part of the whole as a config has it.

    >>> shown_percent(Fraction(4, 5))
    '80%'
    """
    return f"{float(part * 100):.10g}%"


class TrainingConfig(ConfigFile):
    """A training run. `load_training_config` makes one from a file."""

    name: Name = Field(
        description="The name of the run: of its folder below `output`, and of the machines it runs on. A run that is "
        "started again under its name goes on from its last checkpoint.",
        examples=["nano-demo"],
    )
    data: DataConfig = Field(description="The data to train on.", examples=["{outputs: gs://my-bucket/30-50-5-5-10}"])
    model: Text = Field(
        description="A model of `launch/models` by its name, the path of a MaxText model file (.yml), relative to the "
        "config, or the `model_name` of one that MaxText knows.",
        examples=["nano-german-slm"],
    )
    output: Text = Field(
        description="Where checkpoints, metrics and exports go, in a folder of the run's name: relative to the config, "
        "or gs://….",
        examples=["gs://my-bucket/training"],
    )
    target: Literal["local", "tpu-vm", "xpk"] = Field(
        default="local",
        description="Where it trains: on this machine, a TPU VM, or a TPU cluster of GKE. `--target` goes before it.",
        examples=["tpu-vm"],
    )
    tokenizer: Text | None = Field(
        default=None,
        description="A folder with tokenizer.json and tokenizer_config.json. By default the one that the datasets were "
        "built with; where it is given, it has to be the same.",
        examples=["./tokenizer"],
    )
    parameters: Parameters = Field(
        description="Parameters of MaxText, by their names in its base.yml; `steps` and `per_device_batch_size` are "
        "required. Those that follow from the other keys are not among them.",
        examples=["{steps: 1000, per_device_batch_size: 32}"],
    )
    tpu_vm: TpuVmConfig | None = Field(
        default=None,
        description="For `--target tpu-vm`; see docs/training-tpu.md.",
        examples=["{accelerator: v6e-8, zone: europe-west4-a}"],
    )
    xpk: XpkConfig | None = Field(
        default=None,
        description="For `--target xpk`; see docs/training-tpu.md.",
        examples=["{accelerator: v6e-8, zone: europe-west4-a, cluster: my-cluster}"],
    )
    local: LocalConfig | None = Field(
        default=None, description="For `--target local`; see docs/training-local.md.", examples=["{accelerator: gpu}"]
    )

    _document: ConfigDocument | None = PrivateAttr(default=None)

    @classmethod
    def _cross_checks(cls, given: Mapping[str, Any]) -> Iterator[Problem]:
        parameters = given.get("parameters")
        if not isinstance(parameters, Mapping):
            return
        for key, value in parameters.items():
            if what := _parameter_problem(str(key), value):
                yield Problem(("parameters", key), what)

    def outputs(self) -> tuple[str, ...]:
        """The outputs of builds, resolved against the config's folder; a name before one, `NAME=`, stays there."""
        named = (_NAMED.fullmatch(output) for output in self.data.outputs)
        return tuple(f"{match['name']}{self.resolve(match['path'])}" for match in named if match is not None)

    def output_directory(self) -> str:
        """MaxText's `base_output_directory`: the files of the run are in the folder `name` below it."""
        return self.resolve(self.output)

    def tokenizer_folder(self) -> str | None:
        """The tokenizer that the config names, resolved against its folder."""
        return None if self.tokenizer is None else self.resolve(self.tokenizer)

    def refusal(self, problems: Sequence[Problem]) -> UsageError:
        """An error that names the faults of the config, with the lines of its file."""
        document = self._document or ConfigDocument(self.name, _KIND)
        return UsageError(document.message(problems))

    @contextlib.contextmanager
    def blamed(self, *loc: str) -> Iterator[None]:
        """Makes a `UsageError` of the block one that names the place of the fault in the config: `loc`."""
        try:
            yield
        except UsageError as error:
            raise self.refusal([Problem(loc, str(error))]) from error


def _parameter_problem(key: str, value: Any) -> str | None:
    if key in _SECRETS:
        return (
            "is a secret, which a config must not hold, and none is needed: data and tokenizer are files; leave it out"
        )
    if key in SET_BY:
        return f"follows from `{SET_BY[key]}`; remove it here"
    if value is None:
        return "has no value; write one (`none` for MaxText's None), or remove the key"
    if isinstance(value, str) and "${" in value:
        return f"{shown(value)} has `${{`, which MaxText would replace; write the value itself"
    if not isinstance(value, str | int | float | bool):
        return f"{shown(value)} is a list or a mapping; put it into a model file, and name that as `model`"
    return None


def load_training_config(path: str | os.PathLike[str], *, overrides: Mapping[str, Any] | None = None) -> TrainingConfig:
    """Reads a training config and checks its form.

    Args:
        path: a YAML file, local or on a filesystem that Beam knows (`gs://…`).
        overrides: values by dotted key, as `--set KEY=VALUE` gives them: `{"parameters.steps": "10"}`.

    Raises:
        UsageError: the file is not there, is no YAML, or breaks the schema; the message has a line for each error.
    """
    document = open_document(_KIND, path, overrides)
    config = section_of(TrainingConfig, document)
    config._document = document
    return config
