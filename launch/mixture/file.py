"""The files by which MaxText mixes datasets: paths that it expands, and weights.

The train mixture is the JSON of MaxText's `grain_train_mixture_config_path`: for each name a `path`, a glob pattern of
ArrayRecord files, and a `weight` (`get_datasets` in `maxtext/input_pipeline/grain_data_processing.py`, 0.2.5). For
evaluation there is no such file, but `grain_eval_files`, a list of patterns and weights in one text.
"""

from __future__ import annotations

import glob
import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import Literal

from launch.mixture.datasets import Component, Shares
from launch.mixture.outlook import outlook
from launch.mixture.weights import eval_weights
from launch.places import GS, Place
from transforms.errors import UsageError

# The wildcards of a pattern on gs://; there is no way to quote them
# (https://cloud.google.com/storage/docs/json_api/v1/objects/list#list-objects-and-prefixes-using-glob).
_GS_WILDCARDS = frozenset("*?[]{}\\")
# The separators of weights and patterns in `grain_eval_files`; a pattern alone is one without a semicolon.
_SEPARATORS = ",;"


def train_mixture(
    components: Sequence[Component], shares: Shares, place: Place
) -> dict[str, dict[Literal["path", "weight"], str | float]]:
    """The content of MaxText's `grain_train_mixture_config_path`: for each name a path and a weight.

    Args:
        components: the datasets.
        shares: of the train tokens, by name.
        place: where MaxText runs.

    Raises:
        UsageError: a folder cannot be reached from there, or has a name that no pattern can have, or shares are too
            far apart.
    """
    weights = {one.name: one.weight for one in outlook(components, shares).components}
    return {
        one.name: {"path": _pattern(one.folder, "train", one.shards, place), "weight": weights[one.name]}
        for one in components
    }


def mixture_json(mixture: Mapping[str, Mapping[Literal["path", "weight"], str | float]]) -> str:
    """The text of a mixture file."""
    return json.dumps(mixture, indent=1, ensure_ascii=False) + "\n"


def eval_files(components: Sequence[Component], shares: Shares, place: Place) -> str:
    """MaxText's `grain_eval_files`: the eval splits, mixed to the same shares, as `pattern,weight;pattern,weight`.

    MaxText rounds these weights to four decimals, so that the shares are less exact than those of the train mixture.

    Raises:
        UsageError: a dataset has no eval split, or a path has a comma or semicolon or cannot be reached.
    """
    weights = eval_weights(components, shares)
    parts = []
    for one in components:
        path = _pattern(one.folder, "eval", one.eval_shards, place)
        separators = _SEPARATORS if len(components) > 1 else _SEPARATORS[1:]
        if any(separator in path for separator in separators):
            raise UsageError(
                f"{path}: MaxText takes a comma or a semicolon in the path of evaluation files for the end of the "
                "path; rename the folder, or do without evaluation"
            )
        if len(components) == 1:
            return path
        parts.append(f"{path},{float(weights[one.name])}")
    return ";".join(parts)


def _pattern(folder: str, split: str, shards: int, place: Place) -> str:
    """The glob pattern of the shards of a split, as MaxText expands it, and of nothing else.

    Raises:
        UsageError: the folder cannot be reached from `place`, or has a name on gs:// that a pattern cannot have.
    """
    located = place.locate(folder)
    if not located.startswith(GS):
        located = glob.escape(located)
    elif wildcards := _GS_WILDCARDS.intersection(located):
        raise UsageError(
            f"{located}: {' '.join(sorted(wildcards))} in a name on gs:// cannot be told from a wildcard; rename the "
            "folder, or mount the bucket"
        )
    return posixpath.join(located, shard_pattern(split, shards))


def shard_pattern(split: str, shards: int) -> str:
    """The glob pattern of the names of so many shards of a split.

    >>> shard_pattern("train", 12)
    'train-*-of-00012.arecord'
    """
    return f"{split}-*-of-{shards:05d}.arecord"
