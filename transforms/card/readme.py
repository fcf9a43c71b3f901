"""The text of a card: which datasets a folder holds, where they are from, how they are read, shared and built again."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any
from urllib.parse import quote

from transforms.arrayrecord.records import file_extension, holds_ids
from transforms.card.head import head_text
from transforms.card.markdown import code, table
from transforms.card.mix import CardMix
from transforms.card.seal import sealed
from transforms.dataset.manifest import Manifest, TokenizerEntry
from transforms.files.hub_path import HubPath
from transforms.predicates import Predicate, alternatives
from transforms.quantities import format_size

NAME = "README.md"

# Of a dataset; the others stand in mix.yaml.
_MOST_SOURCES = 4
_MOST_CHARACTERS = 300
_VERSION = re.compile(r"[A-Za-z0-9.+-]{1,64}")
_HUB = "https://huggingface.co"


@dataclasses.dataclass(frozen=True)
class SplitFacts:
    """`wanted` are the tokens that a training reads of the split: more than its tokens where it is repeated."""

    tokens: int
    wanted: int
    missing: int
    passes: float | None
    documents: int
    records: int
    bytes: int
    shards: int


@dataclasses.dataclass(frozen=True)
class DatasetFacts:
    """The part of a card about a finished dataset: those facts of its manifest that do not grow with the dataset.

    Attributes:
        files: of the source, of which something may be in the dataset.
        left_out: rows without text.
        version: of Brötchen.
    """

    name: str
    splits: Mapping[str, SplitFacts]
    files: int
    left_out: int
    filtered: int
    tokenizer: TokenizerEntry
    version: str

    @classmethod
    def of(cls, manifest: Manifest) -> DatasetFacts:
        version = manifest.versions.get("broetchen", "")
        splits = {
            name: SplitFacts(
                tokens=split.tokens,
                wanted=split.to_read,
                missing=split.missing,
                passes=split.passes,
                documents=split.documents,
                records=split.records,
                bytes=split.bytes,
                shards=len(split.shards),
            )
            for name, split in manifest.splits.items()
        }
        return cls(
            name=manifest.dataset,
            splits=splits,
            files=len(manifest.source),
            left_out=sum(manifest.skipped.values()),
            filtered=manifest.filtered,
            tokenizer=manifest.tokenizer,
            version=version if _VERSION.fullmatch(version) else "unknown",
        )

    def total(self, part: str, *splits: str) -> int:
        """The sum of `part` over the splits of these names that it has, or over all."""
        return sum(getattr(split, part) for name, split in self.splits.items() if not splits or name in splits)


def readme_text(mix: CardMix, datasets: Sequence[DatasetFacts]) -> str:
    """The content of `README.md`.

    Args:
        mix: the mix.
        datasets: of it that are finished, one at least, in the order of its config.
    """
    records = mix.config["records"]
    head = head_text(
        mix.name,
        {facts.name: mix.datasets[facts.name] for facts in datasets},
        records=sum(facts.total("records") for facts in datasets),
        record_format=records["format"],
        splits={facts.name: list(facts.splits) for facts in datasets},
    )
    parts = [
        head,
        "\n".join(_introduction(mix, datasets)) + "\n",
        _tokens(datasets),
        *_notes(datasets),
        "## Sources\n",
        _sources(mix, datasets),
        "## Tokenizer\n",
        _tokenizer(mix, datasets),
        "## Read it\n",
        _reading(records, datasets[0]),
        "## Share it\n",
        _sharing(),
        "## Build it again\n",
        _building(),
    ]
    return sealed("\n".join(parts) + "\n", "", "<!-- {} -->")


def versions_of(datasets: Sequence[DatasetFacts]) -> list[str]:
    """The versions of Brötchen by which datasets were built."""
    return sorted({facts.version for facts in datasets})


def _introduction(mix: CardMix, datasets: Sequence[DatasetFacts]) -> Iterator[str]:
    records = mix.config["records"]
    train, held_out = (sum(facts.total("tokens", name) for facts in datasets) for name in ("train", "eval"))
    number = f"{len(datasets):,} dataset{'' if len(datasets) == 1 else 's'}"
    yield f"# {mix.name}"
    yield ""
    yield (
        f"{number} with {train:,} tokens to train on"
        + (f" and {held_out:,} held out" if held_out else "")
        + ", each cut to its exact number of tokens by Brötchen "
        + ", ".join(map(code, versions_of(datasets)))
        + "."
    )
    if holds_ids(records["format"]):
        whole = records["format"] == "megatron"
        what = "as token ids" if whole else f"or a piece of one, as at most {records['max_tokens']:,} token ids"
        added = [kind for kind in ("bos", "eos") if records[f"add_{kind}"]]
        yield (
            f"A record is a document, {what}"
            + (f"; {' and '.join(map(str.upper, added))} of each document included." if added else ".")
        )
    else:
        yield "A record is a document, as text; the tokens are those that the tokenizer below makes of it."
    there = {facts.name for facts in datasets}
    if absent := [name for name in mix.datasets if name not in there]:
        yield ""
        yield f"Of the same mix, and not here: {', '.join(map(code, absent))}."


def _tokens(datasets: Sequence[DatasetFacts]) -> str:
    total = sum(facts.total("wanted", "train") for facts in datasets)
    held_out = any("eval" in facts.splits for facts in datasets)

    def row(name: str, of: Sequence[DatasetFacts]) -> list[str]:
        def summed(part: str, *splits: str) -> int:
            return sum(facts.total(part, *splits) for facts in of)

        cells = [name, f"{summed('tokens', 'train'):,}", _percent(summed("wanted", "train"), total)]
        cells += [f"{summed('documents', 'train'):,}"]
        cells += [f"{summed('tokens', 'eval'):,}"] if held_out else []
        return [*cells, f"{summed('records'):,}", f"{summed('shards'):,}", format_size(summed("bytes"))]

    rows = [row(code(facts.name), [facts]) for facts in datasets]
    if len(datasets) > 1:
        rows.append(row("all", datasets))
    titles = ["dataset", "train tokens", "share", "train documents"]
    titles += ["eval tokens"] if held_out else []
    titles += ["records", "shards", "size"]
    return table(titles, rows, numbers=range(1, len(titles)))


def _percent(part: int, whole: int) -> str:
    hundredths = round(Fraction(part * 10_000, whole)) if whole else 0
    return f"{hundredths // 100}.{hundredths % 100:02d} %"


def _notes(datasets: Sequence[DatasetFacts]) -> list[str]:
    lines = []
    for facts in datasets:
        said = []
        for name, split in facts.splits.items():
            if split.passes is not None:
                said.append(
                    f"{name} holds all of its source once, for a budget of {split.wanted:,} tokens: "
                    f"{split.passes:.2f} passes"
                )
            elif split.missing:
                said.append(f"{name} lacks {split.missing:,} tokens of its budget, since the source ended")
        if facts.filtered:
            said.append(f"{facts.filtered:,} rows up to its end were filtered out")
        if facts.left_out:
            said.append(f"{facts.left_out:,} rows up to its end were left out, as they hold no text")
        lines += [f"* {code(facts.name)}: {'; '.join(said)}.\n"] if said else []
    return ["".join(lines)] if lines else []


def _sources(mix: CardMix, datasets: Sequence[DatasetFacts]) -> str:
    configs = [mix.datasets[facts.name] for facts in datasets]
    columns = {
        "dataset": [code(facts.name) for facts in datasets],
        "sources": [_shown_sources(config["source"]) for config in configs],
        "files read": [f"{facts.files:,}" for facts in datasets],
        "license": [code(str(config["license"])) if config.get("license") else "" for config in configs],
        "languages": [", ".join(map(code, config.get("language") or ())) for config in configs],
        "rows taken": [code(text) if (text := filters_text(config)) else "" for config in configs],
    }
    told = {title: cells for title, cells in columns.items() if any(cells)}
    said = "" if "license" in told else "\nThe mix names no license: see those of the sources.\n"
    return table(list(told), zip(*told.values(), strict=True), numbers=[2]) + said


def _shown_sources(sources: Sequence[str]) -> str:
    """Sources as the config has them; those on the hub with a link to their revision."""
    by_place: dict[tuple[str, str] | None, list[str]] = {}
    for source in sources[:_MOST_SOURCES]:
        hub = HubPath.find(source)
        place = None if hub is None else (hub.repository, hub.revision)
        by_place.setdefault(place, []).append(code(_short(source if hub is None else hub.path)))
    shown = [
        ", ".join(paths) if place is None else f"{_hub_link(*place)}: {', '.join(paths)}"
        for place, paths in by_place.items()
    ]
    if (rest := len(sources) - _MOST_SOURCES) > 0:
        shown.append(f"and {rest:,} more, in [mix.yaml](mix.yaml)")
    return "; ".join(shown)


def _hub_link(repository: str, revision: str, kind: str = "datasets/") -> str:
    address = f"{_HUB}/{kind}{quote(repository, safe='/')}"
    if not revision:
        return f"[{code(repository)}]({address})"
    return f"[{code(repository)}]({address}/tree/{quote(revision, safe='')}) at {code(revision[:12])}"


def _short(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"


def filters_text(dataset: Mapping[str, Any]) -> str:
    """Which rows of its source a dataset takes, by its config; empty where that is all of them.

    >>> filters_text({"filters": [["score", ">=", 0.9], ["cut", "==", False]]})
    'score >= 0.9 and cut == false'
    >>> either = [[["kind", "in", ["a", "b"]]], [["n", "<", 2]]]
    >>> filters_text({"filters": either, "exclude": {"column": "id", "values": "x"}})
    'kind in ["a", "b"] or n < 2; id not in x'
    """
    said = []
    if several := alternatives(dataset.get("filters")):
        said.append(" or ".join(" and ".join(map(_shown_predicate, every)) for every in several))
    if excluded := dataset.get("exclude"):
        said.append(f"{excluded['column']} not in {excluded['values']}")
    return _short("; ".join(said))


def _shown_predicate(predicate: Predicate) -> str:
    column, operator, value = predicate
    return f"{column} {operator} {json.dumps(value, ensure_ascii=False)}"


def _tokenizer(mix: CardMix, datasets: Sequence[DatasetFacts]) -> str:
    entry, config = datasets[0].tokenizer, mix.config["tokenizer"]
    what = f"[{mix.tokenizer_path}]({mix.tokenizer_path}), {entry.vocab_size:,} entries, SHA-256 {code(entry.sha256)}"
    if config.get("revision"):
        what += f", from {_hub_link(config['path'], config['revision'], '')}"
    special = "encoded as plain text" if entry.special_tokens == "text" else "encoded as the token"
    return f"{what}.\nWhat reads like a special token in a document is {special}.\n"


def _reading(records: Mapping[str, Any], first: DatasetFacts) -> str:
    kind = "ids" if holds_ids(records["format"]) else "text"
    extension = file_extension(records["format"])
    text = (
        "In this folder, with Brötchen and [Grain](https://github.com/google/grain) installed:\n\n"
        "```python\n"
        "import broetchen\n"
        "import grain\n\n"
        f'train = broetchen.open_dataset("{first.name}")["train"]\n'
        f"dataset = grain.MapDataset.source(train).shuffle(seed=0).map(lambda record: record.{kind})\n"
        f"print(len(dataset), dataset[0][:{8 if kind == 'ids' else 40}])\n"
        "```\n\n"
        f"Each dataset is a folder of shards, such as {code(f'{first.name}/train-*.{extension}')}, and a\n"
        "`manifest.json` with the tokens, records, size and SHA-256 of each, against which `broetchen verify .` holds\n"
        "all of it.\n"
    )
    if records["format"] == "parquet":
        return text + "\nOn the hub, `datasets.load_dataset` reads it as it is: each dataset is a configuration.\n"
    if records["format"] == "megatron":
        return text + (
            "\nA shard is a pair of files in Megatron's format, `.bin` and `.idx`. Megatron-LM, NeMo and MaxText\n"
            "(`grain_file_type=mmap_npy`) read them as they are.\n"
        )
    values = "an int64_list of token ids" if kind == "ids" else "a bytes_list with one UTF-8 text"
    return text + (
        f"\nA shard is an ArrayRecord file of `tf.train.Example`s with one feature, `text`: {values}.\n"
        "MaxText reads it as it is.\n"
    )


def _sharing() -> str:
    return (
        "```sh\n"
        'hf upload OWNER/NAME . . --repo-type dataset --exclude "*.broetchen*"\n'
        "```\n\n"
        "puts this folder on the [hub](https://huggingface.co/docs/hub/datasets-adding) in several commits, and goes\n"
        "on where it was when it is run again. With a huggingface_hub before version 2, the same is\n"
        "`hf upload-large-folder OWNER/NAME . --repo-type dataset`. The licenses of the sources say whether you may.\n"
    )


def _building() -> str:
    return (
        "```sh\n"
        "broetchen build mix.yaml --output FOLDER\n"
        "```\n\n"
        "gives the same bytes from the same sources, with the versions that the manifests name.\n"
    )
