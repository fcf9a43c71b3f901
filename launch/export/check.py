"""Checks an exported model as its users would: loads it with transformers, compares it with MaxText, and generates.

    python -m launch.export.check CONFIG [--step N] [--prompt TEXT …] [--set KEY=VALUE …]

MaxText computes the logits of random token ids from its checkpoint, transformers those of the export. Where the
conversion fits the model they differ by float32's rounding, a few 1e-6; a wrong layout of RoPE makes 1 of that.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launch.config.training import TrainingConfig, load_training_config
from launch.export.cpu_program import cpu_arguments, run_on_cpu
from launch.export.model import ExportedModel, exported_model
from launch.export.run import export_folder
from launch.job import Value
from launch.local import environment
from launch.local.environment import trainer_python
from launch.maxtext.checkpoints import checkpoint_folder, chosen_step
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.files.scratch import temporary_folder

_PROGRAMS = Path(__file__).parent / "programs"
# Two sequences that are long enough for positions to matter.
_SEQUENCES, _LENGTH = 2, 48
_NEW_TOKENS = 16
# Far above rounding, far below the difference of another model's logits.
TOLERANCE = 1e-3
"""The largest difference of a logit that an export may have, for logits of about 1 in size."""


@dataclass(frozen=True)
class MaxTextLogits:
    """The answer of MaxText's model to token ids; its export has to give the same.

    Attributes:
        checkpoint: the model.
        export: the folder that it was exported into.
        ids: int32, of shape [sequences, length].
        logits: float32, of shape [sequences, length, vocabulary].
    """

    checkpoint: str
    export: str
    ids: NDArray[np.int32]
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class ExportCheck:
    """The results of transformers with an export.

    Attributes:
        model: the class that transformers took.
        texts: prompts, gone on with.
        logits: how many were compared.
        difference: the largest absolute difference between MaxText's and transformers' logits.
        scale: the standard deviation of MaxText's.
    """

    model: str
    texts: tuple[str, ...]
    logits: int
    difference: float
    scale: float


def maxtext_logits(config: TrainingConfig, *, step: int | None) -> MaxTextLogits:
    """Lets MaxText compute the logits of random ids from the checkpoint of a step, the last by default.

    Raises:
        UsageError: the model is none that can be exported.
        BroetchenError: the step has no checkpoint or no export, or MaxText cannot load it.
    """
    chosen = chosen_step(config, step)
    folder = export_folder(config, chosen)
    if not storage.is_local(folder) or not Path(folder, "config.json").exists():
        raise BroetchenError(f"{folder} has no exported model on this machine; export it first")
    model = exported_model(config)
    trainer = trainer_python(config, "cpu").ensure()
    checkpoint = storage.join(checkpoint_folder(config, chosen), "items")
    with temporary_folder("check") as temporary:
        scratch = Path(temporary)
        ids = np.random.default_rng(0).integers(
            model.settings["vocab_size"], size=(_SEQUENCES, _LENGTH), dtype=np.int32
        )
        asked, answered = scratch / "ids.npy", scratch / "logits.npy"
        np.save(asked, ids)
        arguments = _logits_arguments(model, checkpoint, scratch)
        _run([trainer, _PROGRAMS / "maxtext_logits.py", asked, answered, *arguments], scratch)
        return MaxTextLogits(checkpoint, folder, ids, np.load(answered))


def check_export(expected: MaxTextLogits, *, prompts: Sequence[str]) -> ExportCheck:
    """Loads an export with transformers, compares its logits with MaxText's, and lets it go on with the prompts.

    Raises:
        BroetchenError: transformers cannot load it, or it is another model than MaxText's.
    """
    generator = environment.generation().ensure()
    with temporary_folder("check") as temporary:
        scratch = Path(temporary)
        ids, logits = scratch / "ids.npy", scratch / "logits.npy"
        np.save(ids, expected.ids)
        request = {"ids": str(ids), "logits": str(logits), "prompts": list(prompts), "new_tokens": _NEW_TOKENS}
        answer = _ask(generator, expected.export, request, scratch)
        got = np.load(logits)
    difference, scale = float(np.abs(expected.logits - got).max()), float(expected.logits.std())
    if not difference <= TOLERANCE * max(1.0, scale):
        raise BroetchenError(
            f"{expected.export} is another model than that of {expected.checkpoint}: their logits differ by up to "
            f"{difference:.3g}"
        )
    return ExportCheck(answer["model"], tuple(answer["texts"]), expected.logits.size, difference, scale)


def _logits_arguments(model: ExportedModel, checkpoint: str, scratch: Path) -> tuple[str, ...]:
    parameters: dict[str, Value] = {
        "run_name": "export-check",
        "base_output_directory": str(scratch),
        "load_parameters_path": checkpoint,
        "dataset_type": "synthetic",
        "max_target_length": _LENGTH,
        "per_device_batch_size": _SEQUENCES,
        "gradient_accumulation_steps": 1,
        # Both compute in float32, so that only a difference of the models is one of their logits.
        "dtype": "float32",
    }
    return cpu_arguments(model.job, scratch, parameters)


def _ask(python: Path, folder: str, request: Mapping[str, Any], scratch: Path) -> Any:
    asked, answered = scratch / "request.json", scratch / "answer.json"
    asked.write_text(json.dumps(request), encoding="utf-8")
    _run([python, _PROGRAMS / "transformers_model.py", folder, asked, answered], scratch)
    return json.loads(answered.read_text(encoding="utf-8"))


def _run(command: Sequence[str | Path], folder: Path) -> None:
    outcome = run_on_cpu(command, folder)
    if outcome.code:
        raise BroetchenError(f"{Path(command[1]).name} ended with status {outcome.code}:\n{outcome.errors}")


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m launch.export.check", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("config", help="the training config")
    parser.add_argument("--step", type=int, help="the last checkpoint's by default")
    parser.add_argument("--prompt", action="append", help="what a text begins with; may be given several times")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a key of the config")
    given = parser.parse_args(arguments)
    try:
        overrides = dict(_override(setting) for setting in given.set)
        config = load_training_config(given.config, overrides=overrides)
        expected = maxtext_logits(config, step=given.step)
        check = check_export(expected, prompts=given.prompt or ["Das ist", "The"])
    except BroetchenError as error:
        print(f"broetchen: {error}", file=sys.stderr)
        return error.exit_code
    print(
        f"{check.model}: {check.logits:,} logits differ from MaxText's by {check.difference:.1e} at most "
        f"(their standard deviation is {check.scale:.2f})"
    )
    for text in check.texts:
        print(f"  {json.dumps(text, ensure_ascii=False)}")
    return 0


def _override(setting: str) -> tuple[str, str]:
    key, equals, value = setting.partition("=")
    if not equals:
        raise UsageError(f"--set {setting}: write KEY=VALUE")
    return key, value


if __name__ == "__main__":
    sys.exit(main())
