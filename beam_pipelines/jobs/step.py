"""Looks up the documents of a step of a training in an exact order, and their places in the source."""

from __future__ import annotations

import dataclasses
import os
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from launch.blend.look_up import parts_of_step
from launch.blend.plan import Blend, DatasetPlan
from launch.blend.write import find_blend, last_order
from launch.config.training import load_training_config
from launch.maxtext.checkpoints import run_folder
from transforms.config.file import is_config
from transforms.dataset.manifest import ShardEntry, read_manifest
from transforms.dataset.trace import RECORD, origin_of
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage


@dataclasses.dataclass(frozen=True)
class ShownPart:
    """A document of a step, or a part of one.

    Attributes:
        step, sequence: counted from 0 over the training.
        row: of the step's batch, all hosts together.
        position: where in the sequence it begins.
        dataset, folder: its name in the order, and where it lies.
        record: the document's number in the split, as `broetchen show --record` takes it.
        shard, record_of_shard: the file, and the document's number in it.
        first_token, last_token: of the document, the last one excluded.
        origin: the document's values in the trace, by column; None where there is no trace.
    """

    step: int
    sequence: int
    row: int
    position: int
    dataset: str
    folder: str
    split: str
    record: int
    shard: str
    record_of_shard: int
    first_token: int
    last_token: int
    origin: Mapping[str, Any] | None


def show_step(uri: str, run: str, step: int) -> Iterator[ShownPart]:
    """The documents that a step of a training trained on, in the order of its sequences.

    Args:
        uri: of a dataset, or of a folder of datasets; documents of others are left out.
        run: the training config, or the folder of an order.
        step: counted from 0, as MaxText logs it.

    Raises:
        UsageError: the run has no exact order, no such step, or none of these datasets.
        BroetchenError: the order was not written yet, or a file is missing or damaged.
    """
    folder, blend = _order(run)
    of_split = blend.plan.splits["train"]
    wanted = _absolute(uri)
    chosen = {number: dataset for number, dataset in enumerate(of_split.datasets) if _is_in(dataset.folder, wanted)}
    if not chosen:
        there = ", ".join(dataset.folder for dataset in of_split.datasets)
        raise UsageError(f"{uri}: none of the datasets of that training, which are {there}")
    steps = of_split.sequences // blend.plan.batch
    if step >= steps:
        raise UsageError(f"--step {step}: the training has steps 0 to {steps - 1:,}")
    shards = {number: _shards(dataset) for number, dataset in chosen.items()}
    for part in parts_of_step(blend, folder, step):
        if part.dataset not in chosen:
            continue
        dataset, shard = chosen[part.dataset], shards[part.dataset][part.shard]
        origin = origin_of(dataset.folder, shard, part.document)
        yield ShownPart(
            step=step,
            sequence=part.sequence,
            row=part.row,
            position=part.position,
            dataset=dataset.name,
            folder=dataset.folder,
            split="train",
            record=part.record,
            shard=part.shard,
            record_of_shard=part.document,
            first_token=part.first_token,
            last_token=part.last_token,
            origin=None if origin is None else {name: value for name, value in origin.items() if name != RECORD},
        )


def _order(run: str) -> tuple[str, Blend]:
    """The folder of an order, and its description."""
    if not is_config(run):
        if (blend := find_blend(run)) is None:
            raise UsageError(f"--run {run}: neither a training config (.yaml) nor the folder of an order")
        return run, blend
    config = load_training_config(run)
    if config.data.order != "exact":
        raise UsageError(
            f"{run}: what a step held is known of an exact order alone (`order: exact`); otherwise it hangs on the "
            "number of hosts and workers, and on how records were packed"
        )
    folder = last_order(run_folder(config))
    blend = None if folder is None else find_blend(folder)
    if folder is None or blend is None:
        raise BroetchenError(f"{run}: the order of {config.name} was not written yet; start the run first")
    return folder, blend


def _shards(one: DatasetPlan) -> dict[str, ShardEntry]:
    """The shards of a dataset's train split, by their names; they have to be those of the order."""
    manifest = read_manifest(one.folder)
    if manifest is None or "train" not in manifest.splits:
        raise BroetchenError(f"{one.folder}: no finished dataset here; the training read one")
    found = {shard.file: shard for shard in manifest.splits["train"].shards}
    if [shard.sha256 for shard in found.values()] != [shard.sha256 for shard in one.shards]:
        raise BroetchenError(f"{one.folder}: was built again since the order was written, with other shards")
    return found


def _is_in(folder: str, wanted: str) -> bool:
    return wanted in (folder := _absolute(folder), posixpath.dirname(folder))


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path)) if storage.is_local(path) else path.rstrip("/")
