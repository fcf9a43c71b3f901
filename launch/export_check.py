"""Checks an exported model as its users would: loads it with transformers, compares it with MaxText, and generates.

    python -m launch.export_check CONFIG [--step N] [--prompt TEXT …] [--set KEY=VALUE …]

MaxText computes the logits of random token ids from its checkpoint, transformers those of the export. Where the
conversion fits the model they differ by float32's rounding, a few 1e-6; a wrong layout of RoPE makes 1 of that.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from launch import python_environment
from launch.checkpoints import checkpoint_folder, chosen_step
from launch.cpu_program import cpu_arguments, run_on_cpu
from launch.export import export_folder
from launch.exported_model import ExportedModel, exported_model
from launch.job import Value
from launch.trainer_python import trainer_python
from launch.training_config import TrainingConfig, load_training_config
from transforms import files
from transforms.errors import BroetchenError, UsageError

_PROGRAMS = Path(__file__).parent / "programs"
# Two sequences that are long enough for positions to matter.
_SEQUENCES, _LENGTH = 2, 48
_NEW_TOKENS = 16
# Far above rounding, far below what another model's logits differ by.
TOLERANCE = 1e-3
"""The largest difference of a logit that an export may have, for logits of about 1 in size."""


@dataclass(frozen=True)
class ExportCheck:
    """What transformers made of an export.

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


def check_export(config: TrainingConfig, *, step: int | None, prompts: Sequence[str]) -> ExportCheck:
    """Loads the export of a step, the last by default.

    Raises:
        BroetchenError: there is no export of it, transformers cannot load it, or it is another model than MaxText's.
    """
    chosen = chosen_step(config, step)
    folder = export_folder(config, chosen)
    if not files.is_local(folder) or not Path(folder, "config.json").exists():
        raise BroetchenError(f"{folder} has no exported model on this machine; export it first")
    model = exported_model(config)
    trainer = trainer_python(config, "cpu").ensure()
    generator = python_environment.generation().ensure()
    checkpoint = files.join(checkpoint_folder(config, chosen), "items")
    with tempfile.TemporaryDirectory(prefix="broetchen-") as temporary:
        scratch = Path(temporary)
        ids, ours, theirs = (scratch / name for name in ("ids.npy", "maxtext.npy", "transformers.npy"))
        vocabulary = model.settings["vocab_size"]
        np.save(ids, np.random.default_rng(0).integers(vocabulary, size=(_SEQUENCES, _LENGTH), dtype=np.int32))
        arguments = _logits_arguments(model, checkpoint, scratch)
        _run([trainer, _PROGRAMS / "maxtext_logits.py", ids, ours, *arguments], scratch)
        request = {"ids": str(ids), "logits": str(theirs), "prompts": list(prompts), "new_tokens": _NEW_TOKENS}
        answer = _ask(generator, folder, request, scratch)
        expected, got = np.load(ours), np.load(theirs)
    difference, scale = float(np.abs(expected - got).max()), float(expected.std())
    if not difference <= TOLERANCE * max(1.0, scale):
        raise BroetchenError(
            f"{folder} is another model than that of {checkpoint}: their logits differ by up to {difference:.3g}"
        )
    return ExportCheck(answer["model"], tuple(answer["texts"]), expected.size, difference, scale)


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
    parser = argparse.ArgumentParser(prog="python -m launch.export_check", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("config", help="the training config")
    parser.add_argument("--step", type=int, help="the last checkpoint's by default")
    parser.add_argument("--prompt", action="append", help="what a text begins with; may be given several times")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a key of the config")
    given = parser.parse_args(arguments)
    try:
        overrides = dict(_override(setting) for setting in given.set)
        config = load_training_config(given.config, overrides=overrides)
        check = check_export(config, step=given.step, prompts=given.prompt or ["Das ist", "The"])
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
