"""From datasets to an order: the sequences there are, those of each phase, and datasets that run dry. No I/O."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from launch.blend import samples, schedule
from launch.blend.plan import DatasetPlan, ShardPlan, Split
from launch.mixture.datasets import Component, Mixture
from launch.places import GS, Place
from transforms.budget.repeats import exact
from transforms.errors import UsageError
from transforms.files import storage

# The separators of paths in MaxText's `grain_train_files`; it knows no quotes.
_SEPARATORS = "|:;"

ENDING = ".bin"
"""The extension of the shards of such datasets."""


@dataclass(frozen=True)
class Phase:
    """A part of the training up to `until`, with shares of the sequences by dataset; they add up to 1."""

    until: Fraction
    shares: Mapping[str, Fraction]


@dataclass(frozen=True)
class Supply:
    """The sequences that an order takes of a dataset.

    Attributes:
        name: of the dataset.
        tokens: that it has, read once.
        repeats: how often it may be read.
        taken: at the most.
        available: in so many passes.
        lasts: sequences of the whole order for which it lasts surely.
        phase: the number of the phase, from 0, in which it runs dry; None where it does not.
        by_config: whether its own config says how often it may be read (`max_repeats`).
    """

    name: str
    tokens: int
    repeats: Fraction
    taken: int
    available: int
    lasts: int
    phase: int | None
    by_config: bool = False

    def passes(self, length: int) -> Fraction:
        """How often it is read."""
        return Fraction(self.taken * length, self.tokens)


def supplies(
    components: Sequence[Component], phases: Sequence[Phase], sequences: int, length: int, epochs: int
) -> list[Supply]:
    """The sequences that an order of a length takes of each dataset's train split.

    Args:
        epochs: how often a dataset may be read whose config does not say (`max_repeats`).
    """
    ends = schedule.phase_ends(sequences, [phase.until for phase in phases])
    rows = [[phase.shares.get(one.name, Fraction(0)) for one in components] for phase in phases]
    found = []
    for number, (one, taken) in enumerate(zip(components, schedule.most(ends, rows), strict=True)):
        repeats = Fraction(epochs) if one.max_repeats is None else exact(one.max_repeats)
        available = samples.available(math.floor(one.tokens * repeats), length)
        lasts = schedule.last_sequence(ends, rows, number, available)
        dry = next((phase for phase, end in enumerate(ends) if lasts < end), None)
        by_config = one.max_repeats is not None
        found.append(Supply(one.name, one.tokens, repeats, taken, available, lasts, dry, by_config))
    return found


def shortages(found: Sequence[Supply], phases: Sequence[Phase], batch: int, length: int) -> Iterator[str]:
    """A sentence for each dataset that runs dry."""
    for one in found:
        if one.phase is None:
            continue
        where = f" in phase {one.phase + 1}" if len(phases) > 1 else ""
        often = "once" if one.repeats == 1 else f"{float(one.repeats):g} times at most"
        # The last sequence needs a token behind it, as its last target.
        needed = math.ceil(Fraction(one.taken * length + 1, one.tokens))
        allow = (
            f"build it with `max_repeats: {needed}`"
            if one.by_config
            else f"allow {needed} passes (`num_epoch: {needed}`)"
        )
        yield (
            f"{one.name} runs dry after {one.lasts // batch:,} steps{where}: its {one.tokens:,} tokens, read {often}, "
            f"are {one.available:,} sequences of {length}, and its shares take {one.taken:,}; write fewer `steps`, "
            f"give it a smaller share, or {allow}"
        )


def dataset_plans(mixture: Mixture, split: Split, place: Place) -> list[DatasetPlan]:
    """The datasets of a split as an order has them; how many sequences it takes is not known yet.

    Raises:
        UsageError: one has no such split, or a folder cannot be reached, or has a name that MaxText would cut.
    """
    plans = []
    for one in mixture.components:
        manifest = mixture.manifests[one.name]
        entry = manifest.splits.get(split)
        if entry is None or not entry.tokens:
            raise UsageError(
                f"{one.name} has no {split} split ({one.folder}); build it with {split}_tokens, leave the dataset out, "
                "or do without evaluation"
            )
        stems = [shard.file.removesuffix(ENDING) for shard in entry.shards]
        if stems != sorted(stems):
            raise UsageError(
                f"{one.name}: MaxText reads shards in the order of their names, and its manifest has those of {split} "
                f"in another one ({one.folder}); build it again, with larger `shards.target_size`"
            )
        plans.append(
            DatasetPlan(
                name=one.name,
                folder=os.path.abspath(one.folder) if storage.is_local(one.folder) else one.folder,
                located=locate(one.folder, place),
                tokens=entry.tokens,
                sequences=1,
                shards=[
                    ShardPlan(stem=shard.file.removesuffix(ENDING), documents=shard.records, sha256=shard.sha256)
                    for shard in entry.shards
                ],
            )
        )
    return plans


def locate(folder: str, place: Place) -> str:
    """Where the machines that train find a folder, by a path that MaxText takes in a list of paths.

    Raises:
        UsageError: it cannot be reached, or its name means something else there.
    """
    located = place.locate(folder)
    if located.startswith(GS):
        raise UsageError(
            f"{located}: MaxText reads datasets of this format from folders alone; mount the bucket with gcsfuse, and "
            "say where (--mount gs://BUCKET=/PATH)"
        )
    if found := [mark for mark in _SEPARATORS if mark in located]:
        raise UsageError(
            f"{located}: MaxText takes {' and '.join(found)} in a path for the end of the path; rename the folder"
        )
    if located != located.strip():
        raise UsageError(f"{located!r}: MaxText drops the blank at its end; rename the folder")
    return located
