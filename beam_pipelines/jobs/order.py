"""Writes an exact order of built datasets into a folder, for a MaxText that somebody starts by hand."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from beam_pipelines.jobs.mixture import chosen_mixture, parse_shares
from launch.blend.check import PROGRAM, check_blend
from launch.blend.plan import MANIFEST, BlendPlan, maxtext_files, split_plan
from launch.blend.supply import Phase, Supply, dataset_plans, locate, shortages, supplies
from launch.blend.write import write_blend
from launch.checks.exact_order import FORMAT, kept_parameters
from launch.job import Value
from launch.maxtext.command import config_file
from launch.mixture.shards import check_shards
from launch.places import Mounts
from transforms.errors import UsageError
from transforms.files import storage

CONFIG = "maxtext.yml"
"""The config of MaxText that is written beside the order."""


@dataclass(frozen=True)
class OrderSummary:
    """An order that was written.

    Attributes:
        folder: of the order.
        sequences, batch, length: of the training; `batch` sequences make a step.
        shares, supplies: of each dataset, in one order.
        check: the answer of MaxText's own loader.
        command: checks it on the machines that train, and then trains.
    """

    folder: str
    sequences: int
    batch: int
    length: int
    shares: Sequence[Fraction]
    supplies: Sequence[Supply]
    check: str
    command: str


def write_order_files(
    outputs: Sequence[str],
    folder: str,
    *,
    steps: int | None,
    batch: int | None,
    length: int | None,
    datasets: Sequence[str] = (),
    shares: str | None = None,
    mounts: Sequence[str] = (),
    epochs: int = 1,
    seed: int = 0,
) -> OrderSummary:
    """Writes the order, a config of MaxText that follows it, and the program that checks it.

    Args:
        outputs, datasets, shares, mounts: see `beam_pipelines.jobs.mixture.write_mixture`.
        folder: for the order, local or gs://….
        steps, batch, length: of the training: `batch` sequences of `length` tokens a step, on all devices.
        epochs: how often a dataset may be read whose config does not say.
        seed: of the order (`data_shuffle_seed`).

    Raises:
        UsageError: the datasets or shares do not go together, a dataset runs dry, or a path cannot be written for
            MaxText.
        BroetchenError: an output has no dataset, a file cannot be read or written, or MaxText would not follow it.
    """
    for option, given in (("--steps", steps), ("--batch", batch), ("--length", length)):
        if given is None:
            raise UsageError(
                f"--blend needs {option}: an order is of so many steps, of so many sequences "
                "(per_device_batch_size × devices × gradient_accumulation_steps), of so many tokens (max_target_length)"
            )
    assert steps is not None and batch is not None and length is not None  # noqa: PT018
    mixture = chosen_mixture(outputs, datasets)
    if mixture.records.format != FORMAT:
        raise UsageError(
            f"--blend is for datasets of `records.format: {FORMAT}`, and these are of {mixture.records.format}; build "
            "them in that format, or write --output"
        )
    check_shards(mixture, ("train",))
    phases = (Phase(Fraction(1), mixture.shares(None if shares is None else parse_shares(shares))),)
    found = supplies(mixture.components, phases, steps * batch, length, epochs)
    if short := next(shortages(found, phases, batch, length), None):
        raise UsageError(short)
    place = Mounts.parse(mounts)
    located = locate(folder, place)
    train = split_plan([steps * batch], [phases[0].shares], dataset_plans(mixture, "train", place))
    eos_id = mixture.records.eos_id
    plan = BlendPlan(
        length=length,
        batch=batch,
        seed=seed,
        shuffle=True,
        eos_id=-1 if eos_id is None else eos_id,
        splits={"train": train},
    )
    check = check_blend(write_blend(plan, folder), folder)
    parameters: dict[str, Value] = {
        **kept_parameters(mixture),
        "grain_train_files": maxtext_files(train, "train", located),
        "blend_index_dir": located,
        "steps": steps,
        "max_target_length": length,
        "data_shuffle_seed": seed,
    }
    config = config_file(CONFIG, "base.yml", parameters, "")
    storage.write_bytes(posixpath.join(folder, CONFIG), config.content.encode())
    storage.write_bytes(posixpath.join(folder, PROGRAM.name), PROGRAM.read_bytes())
    words = ("python", f"{located}/{PROGRAM.name}", located, plan.digest(), "-m", "maxtext.trainers.pre_train.train")
    # MaxText would lay out an order of its own for another number of sequences.
    command = (
        f"{shlex.join((*words, f'{located}/{CONFIG}'))} …, with per_device_batch_size × devices × "
        f"gradient_accumulation_steps = {batch}, and the steps as they are"
    )
    return OrderSummary(
        folder=posixpath.join(folder, MANIFEST),
        sequences=steps * batch,
        batch=batch,
        length=length,
        shares=[phases[0].shares[component.name] for component in mixture.components],
        supplies=found,
        check=check,
        command=command,
    )
