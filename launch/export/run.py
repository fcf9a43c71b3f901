"""From a checkpoint of MaxText to a model of Hugging Face's format, by MaxText's own conversion on the processor."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

from launch.config.training import TrainingConfig
from launch.export.cpu_program import cpu_arguments, run_on_cpu
from launch.export.model import ExportedModel, conversion_job, exported_model, write_config, write_tokenizer
from launch.job import Value
from launch.local.environment import trainer_python
from launch.maxtext.checkpoints import checkpoint_folder, chosen_step, run_folder
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.files.scratch import temporary_folder
from transforms.quantities import format_size

_LOGGER = logging.getLogger(__name__)

_CONVERTER = "maxtext.checkpoint_conversion.to_huggingface"


def export_folder(config: TrainingConfig, step: int) -> str:
    """Where the export of a step is: beside the run's checkpoints."""
    return storage.join(run_folder(config), "huggingface", str(step))


def export_run(config: TrainingConfig, *, step: int | None = None) -> str:
    """Converts a checkpoint on this machine, wherever the run was trained, and answers with the folder of the model.

    In the folder are config, weights and tokenizer. It appears whole where it is local; on gs://, config.json comes
    last. An older export of the step is replaced.

    Args:
        config: the run.
        step: of the checkpoint; the last by default.

    Raises:
        UsageError: MaxText's conversion does not fit the model.
        BroetchenError: there is no such checkpoint, or it cannot be converted.
    """
    chosen = chosen_step(config, step)
    model = exported_model(config)
    python = trainer_python(config, "cpu").ensure()
    target = export_folder(config, chosen)
    _LOGGER.info("%s: converts the checkpoint of step %d", config.name, chosen)
    local = storage.is_local(target)
    if local:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, where it can be renamed to it.
    beside = tempfile.TemporaryDirectory(prefix=".export-", dir=Path(target).parent) if local else None
    with beside or temporary_folder("export") as folder:
        scratch = Path(folder)
        tokenizer, made = scratch / "tokenizer", scratch / "model"
        write_tokenizer(model, tokenizer)
        _convert(model, _weights(checkpoint_folder(config, chosen), scratch), tokenizer, made, python, scratch)
        shutil.copytree(tokenizer, made, dirs_exist_ok=True)
        write_config(model, made)
        made.chmod(0o755)
        for path in made.iterdir():
            path.chmod(0o644)
        if local:
            shutil.rmtree(target, ignore_errors=True)
            made.rename(target)
        else:
            for path in sorted(made.iterdir(), key=lambda path: path.name == "config.json"):
                storage.upload(str(path), storage.join(target, path.name))
    return target


def _convert(model: ExportedModel, weights: Path, tokenizer: Path, made: Path, python: Path, scratch: Path) -> None:
    parameters: dict[str, Value] = {"load_parameters_path": str(weights), "base_output_directory": str(made)}
    options = ("--override_model_architecture", f"--hf_model_path={tokenizer}")
    arguments = cpu_arguments(conversion_job(model), scratch, parameters)
    outcome = run_on_cpu([python, "-m", _CONVERTER, *arguments, *options], scratch)
    if outcome.code or not (made / "config.json").exists():
        raise BroetchenError(f"MaxText could not convert {weights}:\n{outcome.errors}")


def _weights(checkpoint: str, scratch: Path) -> Path:
    """The weights of a checkpoint on this machine: those on gs:// are copied, by Beam."""
    if storage.is_local(checkpoint):
        return Path(checkpoint, "items")
    copy = scratch / "checkpoint"
    found = list_files(checkpoint)
    _LOGGER.info("copies %s, %s", checkpoint, format_size(sum(size for _, size in found)))
    for path, _ in found:
        target = copy / path[len(checkpoint) :].lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        with storage.local_copy(path, str(scratch)) as part:
            shutil.move(part, target)
    return copy / "items"
