"""Built datasets as a mixture that MaxText reads: which go together, by what paths, and in what files.

The train mixture is the JSON of MaxText's `grain_train_mixture_config_path`: for each name a `path`, a glob pattern of
ArrayRecord files, and a `weight` (`get_datasets` in `maxtext/input_pipeline/grain_data_processing.py`, 0.2.5). For
evaluation there is no such file, but `grain_eval_files`, a list of patterns and weights in one text.
"""

from __future__ import annotations

import glob
import json
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from launch.job import Place
from launch.mixture import Component, Shares, default_shares, eval_weights, outlook
from transforms import files
from transforms.errors import BroetchenError, UsageError
from transforms.manifest import Manifest, find_manifests
from transforms.verify import tokenizer_of

_GS = "gs://"
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)=(?P<output>.+)")
# What a pattern on gs:// takes for a wildcard; there is no way to quote it
# (https://cloud.google.com/storage/docs/json_api/v1/objects/list#list-objects-and-prefixes-using-glob).
_GS_WILDCARDS = frozenset("*?[]{}\\")
# What separates weights and patterns in `grain_eval_files`; a pattern alone is one without a semicolon.
_SEPARATORS = ",;"


@dataclass(frozen=True)
class Records:
    """What the records of all components have in common. `max_tokens` is None in `text`, where records are documents.

    `bos_id` and `eos_id` are None where the records have none: `add_bos` and `add_eos` are false then.
    """

    format: Literal["tokens", "text"]
    max_tokens: int | None
    bos_id: int | None
    eos_id: int | None

    @property
    def add_bos(self) -> bool:
        """Whether each document begins with BOS."""
        return self.bos_id is not None

    @property
    def add_eos(self) -> bool:
        """Whether each document ends with EOS."""
        return self.eos_id is not None


@dataclass(frozen=True)
class Mixture:
    """Datasets that go together.

    Attributes:
        components: the datasets.
        in_given_order: whether their order is that of the command line or config, and not of their names alone.
        manifests: by the name of the component.
        records: what their records have in common.
        tokenizer_sha256, vocab_size: of the tokenizer of them all.
        tokenizer: where the first component has that tokenizer's file.
    """

    components: tuple[Component, ...]
    in_given_order: bool
    manifests: Mapping[str, Manifest]
    records: Records
    tokenizer_sha256: str
    vocab_size: int
    tokenizer: str

    def shares(self, given: Mapping[str, Fraction] | Sequence[Fraction] | None = None) -> Shares:
        """The wanted shares of the train tokens; they add up to 1, whatever those that are given add up to.

        Args:
            given: by name, or in the order of the components; None for those that the configs wanted.

        Raises:
            UsageError: they are not one for each dataset, or it is not certain which is whose.
        """
        if given is None:
            return default_shares(self.components)
        names = [one.name for one in self.components]
        if not isinstance(given, Mapping):
            if len(given) != len(names):
                raise UsageError(f"{len(given)} shares are not one for each of {len(names)} datasets: {_listed(names)}")
            if not self.in_given_order and len(names) > 1:
                raise UsageError(
                    "it is not certain which share is whose, since the datasets of an output are in no order of their "
                    f"own; write {','.join(f'{name}=…' for name in names)}, or name the datasets in the order of their "
                    "shares"
                )
            given = dict(zip(names, given, strict=True))
        if unknown := [name for name in given if name not in names]:
            raise UsageError(f"a share is for {unknown[0]}, which is none of the datasets: {_listed(names)}")
        if without := [name for name in names if name not in given]:
            raise UsageError(f"{without[0]} has no share; give it one, or leave the dataset out")
        total = sum(given.values())
        return {name: given[name] / total for name in names}


@dataclass(frozen=True)
class Mounts:
    """A `Place` that sees buckets as folders: `mounts` has a path for each gs://bucket or gs://bucket/folder.

    What is on no mount keeps its gs:// name; local paths become absolute.
    """

    mounts: Mapping[str, str]

    @classmethod
    def parse(cls, options: Sequence[str]) -> Mounts:
        """From options of the form `gs://bucket=/path`.

        Raises:
            UsageError: one is not of that form.
        """
        mounts = {}
        for option in options:
            uri, _, path = option.partition("=")
            if not uri.startswith(_GS) or not uri.removeprefix(_GS).strip("/") or not path.startswith("/"):
                raise UsageError(f"--mount {option}: not of the form gs://bucket=/path, with an absolute path")
            mounts[uri.rstrip("/")] = path
        return cls(mounts)

    def locate(self, uri: str) -> str:
        """See `Place`."""
        for mounted in sorted(self.mounts, key=len, reverse=True):
            if uri == mounted or uri.startswith(f"{mounted}/"):
                return posixpath.join(self.mounts[mounted], uri[len(mounted) :].lstrip("/")).rstrip("/")
        if files.is_local(uri):
            return os.path.abspath(os.path.expanduser(uri))
        if not uri.startswith(_GS):
            raise UsageError(f"{uri}: MaxText reads local paths and gs:// alone; copy it there")
        return uri


def read_components(outputs: Sequence[str], names: Sequence[str] = ()) -> Mixture:
    """The datasets of outputs of `broetchen build`, which may be of other times, places and configs.

    Args:
        outputs: folders of datasets, or of one dataset, which `NAME=` before it gives another name.
        names: only these, in this order; by default all, in the order of `outputs`.

    Raises:
        UsageError: a name is not there, or comes twice, or the datasets do not go together: they have another
            tokenizer, or another kind of records.
        BroetchenError: an output has no finished dataset, or has one that is damaged.
    """
    found: dict[str, tuple[str, Manifest]] = {}
    ordered = True
    for output in outputs:
        datasets = list(_datasets(output))
        ordered = ordered and len(datasets) == 1
        for name, folder, manifest in datasets:
            if name in found:
                raise UsageError(
                    f"two datasets are called {name}: {found[name][0]} and {folder}; give one of them another name "
                    f"(other-name={folder}), or leave one out"
                )
            found[name] = folder, manifest
    if not found:
        raise UsageError("no output was named; name the folders that broetchen build has written")
    for name in names:
        if name not in found:
            raise UsageError(f"--dataset {name}: there is no such dataset; there is {_listed(found)}")
        if list(names).count(name) > 1:
            raise UsageError(f"--dataset {name} comes twice")
    chosen = {name: found[name] for name in names or found}
    records = _common_records(chosen)
    first_folder, first = next(iter(chosen.values()))
    return Mixture(
        components=tuple(_component(name, folder, manifest) for name, (folder, manifest) in chosen.items()),
        in_given_order=ordered or bool(names),
        manifests={name: manifest for name, (_, manifest) in chosen.items()},
        records=records,
        tokenizer_sha256=first.tokenizer.sha256,
        vocab_size=first.tokenizer.vocab_size,
        tokenizer=tokenizer_of(first_folder, first).path,
    )


def _datasets(output: str) -> Iterator[tuple[str, str, Manifest]]:
    """(name, folder, manifest) of each dataset of an output."""
    named = _NAMED.fullmatch(output)
    where = named["output"] if named else output
    manifests = find_manifests(where.rstrip("/") or "/")
    if named and len(manifests) > 1:
        raise UsageError(
            f"{output}: there are {len(manifests)} datasets, which cannot all be called {named['name']}; name the "
            "folder of one dataset"
        )
    for folder, manifest in manifests.items():
        yield named["name"] if named else manifest.dataset, folder, manifest


def _component(name: str, folder: str, manifest: Manifest) -> Component:
    train, evaluation = manifest.splits.get("train"), manifest.splits.get("eval")
    if train is None or not train.tokens:
        raise BroetchenError(f"{folder}: its train split has no tokens, so that it cannot be in a mixture")
    return Component(
        name=name,
        folder=folder,
        tokens=train.tokens,
        records=train.records,
        shards=len(train.shards),
        budget=train.budget,
        eval_tokens=evaluation.tokens if evaluation else 0,
        eval_records=evaluation.records if evaluation else 0,
        eval_shards=len(evaluation.shards) if evaluation else 0,
    )


def _common_records(chosen: Mapping[str, tuple[str, Manifest]]) -> Records:
    """What all records have in common; a `UsageError` names what is not common to all."""
    first_name, (first_folder, first) = next(iter(chosen.items()))
    wanted = _traits(first)
    if wanted["records.format"] == "parquet":
        raise UsageError(
            f"{first_folder}: its shards are parquet files, which no mixture of MaxText's takes; build it with "
            "records.format tokens or text"
        )
    for name, (folder, manifest) in chosen.items():
        for trait, value in _traits(manifest).items():
            if value != wanted[trait]:
                raise UsageError(
                    f"{name} and {first_name} do not go together: {trait} is {value} for the one ({folder}), and "
                    f"{wanted[trait]} for the other ({first_folder}); build one of them anew"
                )
    records = first.config["records"]
    is_text = records["format"] == "text"
    return Records(
        format="text" if is_text else "tokens",
        max_tokens=None if is_text else int(records["max_tokens"]),
        bos_id=first.tokenizer.bos_id,
        eos_id=first.tokenizer.eos_id,
    )


def _traits(manifest: Manifest) -> dict[str, object]:
    """What has to be the same in all datasets of a mixture, by what an error calls it."""
    records, tokenizer = manifest.config["records"], manifest.tokenizer
    traits = {
        "records.format": records["format"],
        "the tokenizer's sha256": tokenizer.sha256,
        "tokenizer.special_tokens": tokenizer.special_tokens,
        "the BOS id of records.add_bos": tokenizer.bos_id,
        "the EOS id of records.add_eos": tokenizer.eos_id,
    }
    return traits if records["format"] == "text" else traits | {"records.max_tokens": records["max_tokens"]}


def train_mixture(
    components: Sequence[Component], shares: Shares, place: Place
) -> dict[str, dict[Literal["path", "weight"], str | float]]:
    """The content of MaxText's `grain_train_mixture_config_path`: for each name a path and a weight.

    Args:
        components: the datasets.
        shares: of the train tokens, by name.
        place: where MaxText runs.

    Raises:
        UsageError: a folder cannot be reached from there, or has a name that no pattern can have.
    """
    weights = {one.name: one.weight for one in outlook(components, shares).components}
    return {
        one.name: {"path": pattern(one.folder, "train", one.shards, place), "weight": weights[one.name]}
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
        path = pattern(one.folder, "eval", one.eval_shards, place)
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


def pattern(folder: str, split: str, shards: int, place: Place) -> str:
    """The glob pattern of the shards of a split, as MaxText expands it, and of nothing else.

    Raises:
        UsageError: the folder cannot be reached from `place`, or has a name on gs:// that a pattern cannot have.
    """
    located = place.locate(folder)
    if not located.startswith(_GS):
        located = glob.escape(located)
    elif wildcards := _GS_WILDCARDS.intersection(located):
        raise UsageError(
            f"{located}: {' '.join(sorted(wildcards))} in a name on gs:// cannot be told from a wildcard; rename the "
            "folder, or mount the bucket"
        )
    return posixpath.join(located, f"{split}-*-of-{shards:05d}.arecord")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
