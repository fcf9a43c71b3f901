"""The plan of an exact order: all that decides its bytes, as plain data, and the names that MaxText will look for.

MaxText finds the files of a dataset's order by a hash over the paths of its shards, as they are on the machine that
trains, and over how many epochs it would need by its own arithmetic (`compute_index_hash` and its neighbours in
`maxtext/input_pipeline/_mmap_index_utils.py`, 0.2.5). That arithmetic is here; `launch.blend.check` lets MaxText do it.
"""

from __future__ import annotations

import hashlib
import json
import math
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Literal

import numpy as np
import pydantic

from launch.blend import samples, schedule
from transforms.dataset.manifest import Count, Hash, Name

MANIFEST = "blend.json"
"""The name of the file that describes the folder of an order; it is written last."""

Split = Literal["train", "eval"]

_Share = Annotated[str, pydantic.Field(pattern=r"^[0-9]{1,40}(/[1-9][0-9]{0,39})?$")]

# Percent by which MaxText makes the need of each dataset larger (`blend_margin`).
_MARGIN = 0.5
# Of a last epoch: where less of it is needed, MaxText shuffles it apart from the others.
_THRESHOLD = 0.80


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class ShardPlan(_Part):
    """A shard: `stem` is its name without the ending."""

    stem: Name
    documents: Count
    sha256: Hash


class DatasetPlan(_Part):
    """A dataset of an order, and the part of it that is read.

    Attributes:
        folder: where it was read, a local path or gs://….
        located: where the machines that train find it.
        tokens: of the split, read once.
        sequences: the most that the order takes.
    """

    name: Name
    folder: Annotated[str, pydantic.Field(max_length=8192)]
    located: Annotated[str, pydantic.Field(max_length=8192)]
    tokens: Annotated[int, pydantic.Field(gt=0, lt=2**63)]
    sequences: Annotated[int, pydantic.Field(gt=0, lt=2**63)]
    shards: Annotated[Sequence[ShardPlan], pydantic.Field(min_length=1)]


class PhasePlan(_Part):
    """A part of the training, up to its sequence number `end`: shares are fractions, one for each dataset."""

    end: Count
    shares: Sequence[_Share]

    def fractions(self) -> list[Fraction]:
        """The shares, exactly."""
        return list(map(Fraction, self.shares))


class SplitPlan(_Part):
    """The order of a split; `sequences` is the number that MaxText will ask for."""

    sequences: Annotated[int, pydantic.Field(gt=0, lt=2**63)]
    phases: Annotated[Sequence[PhasePlan], pydantic.Field(min_length=1)]
    datasets: Annotated[Sequence[DatasetPlan], pydantic.Field(min_length=1, max_length=schedule.MOST_DATASETS)]

    def ends(self) -> list[int]:
        """Where the phases end."""
        return [phase.end for phase in self.phases]

    def shares(self) -> list[list[Fraction]]:
        """The shares of the phases."""
        return [phase.fractions() for phase in self.phases]


def _with_train(splits: Mapping[Split, SplitPlan]) -> Mapping[Split, SplitPlan]:
    if "train" not in splits:
        raise ValueError("it has no train split")
    return splits


class BlendPlan(_Part):
    """All that decides the bytes of an order.

    Attributes:
        length: tokens of a sequence.
        batch: sequences of a step, on all devices.
        seed, shuffle: of the documents and sequences of each dataset.
        eos_id: ends each document.
    """

    version: Literal[1] = 1
    length: Annotated[int, pydantic.Field(gt=0, lt=2**31)]
    batch: Annotated[int, pydantic.Field(gt=0, lt=2**31)]
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)]
    shuffle: bool
    eos_id: Annotated[int, pydantic.Field(ge=-1, lt=2**32)]
    splits: Annotated[Mapping[Split, SplitPlan], pydantic.AfterValidator(_with_train)]

    def digest(self) -> str:
        """SHA-256 of the plan."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def beginning(self) -> str:
        """SHA-256 of all that decides the order of the training but its length: orders that share it begin alike.

        Where phases end, follows from the length, so that orders of several phases begin alike only if they end alike.
        """
        train = self.splits["train"]
        decides = {
            "length": self.length,
            "batch": self.batch,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "ends": train.ends()[:-1],
            "shares": [list(phase.shares) for phase in train.phases],
            "datasets": [[one.name, *(shard.sha256 for shard in one.shards)] for one in train.datasets],
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


class BlendFile(_Part):
    """A file of a written order, by its path in the folder."""

    file: Annotated[str, pydantic.Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*/){0,2}[A-Za-z0-9][A-Za-z0-9._-]*$")]
    bytes: Count
    sha256: Hash


class Blend(_Part):
    """The content of `blend.json`."""

    format: Literal["broetchen-blend"] = "broetchen-blend"
    digest: str
    plan: BlendPlan
    files: Sequence[BlendFile]


def split_plan(
    ends: Sequence[int], shares: Sequence[Mapping[str, Fraction]], datasets: Sequence[DatasetPlan]
) -> SplitPlan:
    """The plan of a split, with the datasets that get a sequence; their `sequences` are set here.

    Args:
        ends: where the phases end, the last with the split.
        shares: of each phase, by dataset; those that a phase does not name have none.
        datasets: all of them.
    """
    rows = [[phase.get(one.name, Fraction(0)) for one in datasets] for phase in shares]
    kept = [
        (one.model_copy(update={"sequences": most}), number)
        for number, (one, most) in enumerate(zip(datasets, schedule.most(ends, rows), strict=True))
        if most
    ]
    return SplitPlan(
        sequences=ends[-1],
        phases=[
            PhasePlan(end=end, shares=[str(row[number]) for _, number in kept])
            for end, row in zip(ends, rows, strict=True)
        ],
        datasets=[one for one, _ in kept],
    )


def index_folder(split: Split, name: str) -> str:
    """Where in an order's folder the files of a dataset lie."""
    return f"{split}/{name}"


def schedule_files(split: Split) -> tuple[str, str]:
    """The two files of the schedule: the number of each sequence's dataset, and its number in that dataset.

    The names tell MaxText which split they are of (`_find_index_pair_in_dir` in
    `maxtext/input_pipeline/_megatron_blending.py`).
    """
    begin = f"order-BlendedDataset-{split}-"
    return f"{begin}dataset_index.npy", f"{begin}dataset_sample_index.npy"


def maxtext_files(plan: SplitPlan, split: Split, folder: str) -> str:
    """MaxText's `grain_train_files` or `grain_eval_files`: `INDICES|SHARD:SHARD…,WEIGHT;…`.

    Weights only tell MaxText how much of each dataset is needed; the schedule decides the order.

    Args:
        folder: of the order, as the machines that train see it.
    """
    parts = [
        f"{posixpath.join(folder, index_folder(split, one.name))}|{':'.join(_prefixes(one))}" for one in plan.datasets
    ]
    if len(parts) == 1:
        return parts[0]
    return ";".join(f"{part},{one.sequences}" for part, one in zip(parts, plan.datasets, strict=True))


def _prefixes(dataset: DatasetPlan) -> Iterator[str]:
    return (posixpath.join(dataset.located, shard.stem) for shard in dataset.shards)


def index_hashes(plan: SplitPlan, length: int, seed: int) -> list[str]:
    """The prefix of each dataset's index files, as MaxText names them."""
    # In floats, as MaxText has it.
    weights = np.array([one.sequences for one in plan.datasets], np.float64)
    weights = weights / np.sum(weights)
    hashes = []
    for one, weight in zip(plan.datasets, weights.tolist(), strict=True):
        needed = plan.sequences
        if len(plan.datasets) > 1:
            needed = math.ceil(math.ceil(plan.sequences * weight) * (1.0 + _MARGIN / 100.0))
        hashes.append(_index_hash(sorted(_prefixes(one)), one.tokens, needed, length, seed))
    return hashes


def _index_hash(prefixes: Sequence[str], tokens: int, needed: int, length: int, seed: int) -> str:
    epochs = max(1, math.ceil((needed * length + 1) / tokens))
    apart = False
    if epochs > 1:
        last = needed - ((epochs - 1) * tokens - 1) // length
        apart = last < int(_THRESHOLD * ((tokens - 1) // length))
    description = {
        "class": "MegatronNpyDataSource",
        "input_paths": list(prefixes),
        "num_epochs": epochs,
        "separate_final_epoch": apart,
        "seed": seed,
        "sequence_length": length,
        "split": None,
        "split_index": 0,
        "add_extra_token": 1,
    }
    return hashlib.md5(json.dumps(description, indent=4).encode(), usedforsecurity=False).hexdigest()


def passes(dataset: DatasetPlan, length: int) -> Fraction:
    """How often a dataset is read."""
    return Fraction(dataset.sequences * length, dataset.tokens)


def available(tokens: int, length: int, repeats: Fraction | None) -> int | None:
    """How many sequences a dataset has, where it may be read `repeats` times; None for any number of times."""
    return None if repeats is None else samples.available(math.floor(tokens * repeats), length)
