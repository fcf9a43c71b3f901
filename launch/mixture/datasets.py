"""Built datasets that are trained on together: which go together, the kind of their records, and their shares."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from transforms.dataset.manifest import Manifest, find_manifests, tokenizer_of
from transforms.errors import BroetchenError, UsageError

_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)=(?P<output>.+)")

Shares = Mapping[str, Fraction]
"""Wanted shares of the tokens, by component; they add up to 1."""


@dataclass(frozen=True)
class Component:
    """One dataset of a mixture, as its manifest counts it.

    Attributes:
        name: its name in the mixture.
        folder: where it lies, a local path or gs://….
        tokens, records, shards: of the train split.
        budget: the tokens that its config wanted for the train split; more than `tokens` where the source was short.
        eval_tokens, eval_records, eval_shards: of the eval split; 0 where there is none.
        passes: how often its train split is to be read for its budget; None for a single time.
        missing: tokens of the budget that no pass reads.
        max_repeats: how often its config allows that; None where it does not say.
    """

    name: str
    folder: str
    tokens: int
    records: int
    shards: int
    budget: int
    eval_tokens: int = 0
    eval_records: int = 0
    eval_shards: int = 0
    passes: float | None = None
    missing: int = 0
    max_repeats: float | None = None

    @property
    def to_read(self) -> int:
        """Tokens of all its passes."""
        return self.tokens if self.passes is None else self.budget - self.missing


@dataclass(frozen=True)
class Records:
    """The traits that the records of all components share. `max_tokens` is None where records are whole documents.

    `bos_id` and `eos_id` are None where the records have none: `add_bos` and `add_eos` are false then.
    """

    format: Literal["tokens", "text", "megatron"]
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
        records: the traits that all of their records share.
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

    @property
    def data_bytes(self) -> int:
        """The size of all shards, those of eval splits included."""
        return sum(split.bytes for manifest in self.manifests.values() for split in manifest.splits.values())

    def shares(self, given: Mapping[str, Fraction] | Sequence[Fraction] | None = None) -> Shares:
        """The wanted shares of the train tokens; they add up to 1, for any sum of those that are given.

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


def default_shares(components: Sequence[Component]) -> dict[str, Fraction]:
    """The shares that the configs of the components wanted: by the budgets of their train splits."""
    total = sum(component.budget for component in components)
    return {component.name: Fraction(component.budget, total) for component in components}


def read_mixture(outputs: Sequence[str], names: Sequence[str] = ()) -> Mixture:
    """The datasets of outputs of `broetchen build`, which may be of other times, places and configs.

    Args:
        outputs: folders of datasets, or of one dataset, which `NAME=` before it gives another name.
        names: only these, in this order; by default all, in the order of `outputs`.

    Raises:
        UsageError: a name is not there, or comes twice, or the datasets do not go together: they have another
            tokenizer, or another kind of records.
        BroetchenError: an output has no finished dataset, or has one that is damaged.
    """
    by_name: dict[str, tuple[str, Manifest]] = {}
    ordered = True
    for output in outputs:
        datasets = list(_datasets(output))
        ordered = ordered and len(datasets) == 1
        for name, folder, manifest in datasets:
            if name in by_name:
                raise UsageError(
                    f"two datasets are called {name}: {by_name[name][0]} and {folder}; give one of them another name "
                    f"(other-name={folder}), or leave one out"
                )
            by_name[name] = folder, manifest
    if not by_name:
        raise UsageError("no output was named; name the folders that broetchen build has written")
    for name in names:
        if name not in by_name:
            raise UsageError(f"there is no dataset {name}; there is {_listed(by_name)}")
        if list(names).count(name) > 1:
            raise UsageError(f"dataset {name} comes twice; name it once")
    chosen = {name: by_name[name] for name in names or by_name}
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
    manifests = find_manifests(where)
    if named and len(manifests) > 1:
        raise UsageError(
            f"{output}: there are {len(manifests)} datasets, which cannot all be called {named['name']}; name the "
            "folder of one dataset"
        )
    for folder, manifest in manifests.items():
        yield named["name"] if named else manifest.dataset, folder, manifest


def _component(name: str, folder: str, manifest: Manifest) -> Component:
    train, evaluation = manifest.splits.get("train"), manifest.splits.get("eval")
    if train is None or not (train.tokens and train.records and train.budget):
        raise BroetchenError(f"{folder}: its train split has no tokens, so that it cannot be in a mixture")
    if evaluation and evaluation.tokens and not evaluation.records:
        raise BroetchenError(f"{folder}: its eval split has tokens, and no records; see what broetchen verify says")
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
        passes=train.passes,
        missing=train.missing,
        max_repeats=manifest.max_repeats,
    )


def _common_records(chosen: Mapping[str, tuple[str, Manifest]]) -> Records:
    """The traits that all records share; a `UsageError` names one that they do not."""
    first_name, (first_folder, first) = next(iter(chosen.items()))
    wanted, record_format = _traits(first), first.record_format
    if record_format == "parquet":
        raise UsageError(
            f"{first_folder}: its shards are parquet files, which no mixture of MaxText's takes; build it with "
            "records.format tokens or text"
        )
    for name, (folder, manifest) in chosen.items():
        for trait, value in _traits(manifest).items():
            if value != wanted[trait]:
                raise UsageError(
                    f"{name} and {first_name} do not go together: {trait} is {value} for the one ({folder}), and "
                    f"{wanted[trait]} for the other ({first_folder}); build one of them again"
                )
    return Records(
        format=record_format,
        max_tokens=first.max_tokens if record_format == "tokens" else None,
        bos_id=first.tokenizer.bos_id,
        eos_id=first.tokenizer.eos_id,
    )


def _traits(manifest: Manifest) -> dict[str, object]:
    """The traits that all datasets of a mixture must share, by their names in errors."""
    tokenizer = manifest.tokenizer
    traits: dict[str, object] = {
        "records.format": manifest.record_format,
        "the tokenizer's sha256": tokenizer.sha256,
        "tokenizer.special_tokens": tokenizer.special_tokens,
        "the BOS id of records.add_bos": tokenizer.bos_id,
        "the EOS id of records.add_eos": tokenizer.eos_id,
    }
    return traits | {"records.max_tokens": manifest.max_tokens} if manifest.record_format == "tokens" else traits


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
