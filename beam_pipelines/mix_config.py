"""The mix config: which datasets, in which shares, tokenized how, written how.

A config is a YAML file (`docs/config.md` lists every key). `load_config` reads it from any filesystem that Beam knows
and checks all of it before anything starts: an error names the file, the line, the key and the value and says how to
mend it, and one message holds all the errors of a file.

This module does not import Apache Beam, unless a config lies on a remote filesystem: `broetchen --help` stays quick.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    Tag,
    WithJsonSchema,
)

from transforms.config_document import Kind, Problem
from transforms.config_section import (
    UNSHOWN,
    ConfigFile,
    Name,
    Section,
    Text,
    check_name,
    mended,
    one_or_several,
    open_document,
    resolve_path,
    section_of,
)
from transforms.errors import UsageError, listed
from transforms.hub_path import COMMIT, HubPath
from transforms.largest_remainder import apportion
from transforms.quantities import format_count, format_percent, parse_count, parse_percent, parse_size, shown

_KIND = Kind("mix config", "mix_configs/demo.yaml")

_MAX_GROUP_SIZE = 2**31 - 1
# Shares that an error spells out.
_MOST_NAMED = 20
# The levels that array_record's option parser accepts. Its snappy has some too, but does not record them in the file.
_COMPRESSION_LEVELS = {"zstd": (-131072, 22), "brotli": (0, 11), "snappy": None, "none": None}

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?")


@dataclasses.dataclass(frozen=True, slots=True)
class DatasetBudget:
    """How many tokens to write of a dataset: exactly `train`, and exactly `eval` right after them."""

    train: int
    eval: int

    @property
    def total(self) -> int:
        """The tokens of both splits."""
        return self.train + self.eval


# --- The fields' types ------------------------------------------------------------------------------------------------


def _parse_budget(value: Any) -> int:
    count = parse_count(value)
    if count == 0:
        raise UsageError(f"{shown(value)} is a budget of 0 tokens; give at least 1, or leave the dataset out")
    return count


def _parse_share(value: Any) -> Fraction:
    share = parse_percent(value)
    if share == 0:
        raise UsageError(f"{shown(value)} is a budget of 0 tokens; give more than 0%, or leave the dataset out")
    return share


def _parse_target_size(value: Any) -> int:
    size = parse_size(value)
    if size == 0:
        raise UsageError(f"{shown(value)} is no size for a shard; 512MiB is a good one")
    return size


def _check_dataset_name(value: str) -> str:
    if value.lower() == "manifest.json":
        raise UsageError(f"{shown(value)} is the name of the output's manifest; give the dataset another name")
    return check_name(value)


def _check_compression(value: Any) -> str:
    kind, colon, level = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind not in _COMPRESSION_LEVELS:
        choices = ", ".join(_COMPRESSION_LEVELS)
        raise UsageError(f"{shown(value)} is no compression of ArrayRecord; write {choices}, or zstd:3 for a level")
    bounds = _COMPRESSION_LEVELS[kind]
    if not colon:
        return kind
    if bounds is None:
        raise UsageError(f"{shown(value)} has a level, which {kind} does not take; write {kind}")
    low, high = bounds
    if not re.fullmatch(r"0|-?[1-9][0-9]{0,6}", level) or not low <= int(level) <= high:
        raise UsageError(f"{shown(value)} has no valid level; {kind} takes whole numbers from {low} to {high}")
    return f"{kind}:{level}"


def _to_sources(value: Any) -> tuple[Any, ...]:
    return one_or_several(value, Mapping, HubDataset)


def _kind_of_source(value: Any) -> str:
    return f"{UNSHOWN}{'dataset' if isinstance(value, Mapping | HubDataset) else 'path'}"


def _check_source(value: str) -> str:
    if not value.strip() or value != value.strip():
        raise UsageError(f"{shown(value)} is empty or has spaces around it; write a path, such as german/*.parquet")
    if value.startswith("hf://"):
        _check_hub_source(value)
    elif value.lower().startswith(("http://", "https://")):
        raise UsageError(
            f"{shown(value)} is a web address, which Beam cannot read; write hf://datasets/OWNER/NAME@REVISION/path "
            "for files of the Hugging Face hub, or copy them to a disk or bucket"
        )
    return value


def _check_hub_source(value: str) -> None:
    try:
        source = HubPath.parse(value)
    except UsageError:
        source = None
    if source is None or not source.path:
        raise UsageError(
            f"{shown(value)} is not a file of a hub dataset; write hf://datasets/OWNER/NAME@REVISION/path/*.parquet"
        )


def _unpinned(sources: Any) -> Iterator[Problem]:
    """The problems of hub sources that could change between two builds."""
    for number, source in enumerate(sources if isinstance(sources, list | tuple) else [sources]):
        path = _or_none(_hub_source, source)
        if path is not None and not path.pinned:
            how = "`revision: REVISION`" if path.path == "" else f"hf://datasets/{path.repository}@REVISION/{path.path}"
            yield Problem(
                ("source", number),
                f"{shown(source)} is not pinned to a full revision (40 hexadecimal digits), so it could change between "
                f"two builds; write {how} with the commit that "
                f"`git ls-remote https://huggingface.co/datasets/{path.repository} HEAD` prints, or allow_unpinned: "
                "true to take what is there now, and keep its commit in the manifest",
            )


def _hub_source(source: Any) -> HubPath | None:
    if isinstance(source, HubDataset):
        source = source.model_dump()
    if isinstance(source, Mapping):
        repository, revision = source.get("dataset"), source.get("revision") or ""
        if not isinstance(repository, str) or not isinstance(revision, str):
            return None
        return HubPath(repository, revision, "")
    return HubPath.parse(source) if isinstance(source, str) and source.startswith("hf://") else None


def _check_repository(value: str) -> str:
    if not _HUB_ID.fullmatch(value):
        raise UsageError(f"{shown(value)} is no repository of the hub; write OWNER/NAME")
    return value


def _is_hub_id(path: str) -> bool:
    """Whether a tokenizer path names a repository of the hub, by its form alone: `gpt2`, `EleutherAI/gpt-neox-20b`."""
    return bool(_HUB_ID.fullmatch(path)) and not path.endswith(".json")


_QUANTITY: dict[str, Any] = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}

DatasetName = Annotated[str, AfterValidator(mended(_check_dataset_name))]
Count = Annotated[int, BeforeValidator(mended(parse_count)), WithJsonSchema(_QUANTITY)]
Budget = Annotated[int, BeforeValidator(mended(_parse_budget)), WithJsonSchema(_QUANTITY)]
TargetSize = Annotated[int, BeforeValidator(mended(_parse_target_size)), WithJsonSchema(_QUANTITY)]
Share = Annotated[
    Fraction,
    PlainValidator(mended(_parse_share)),
    PlainSerializer(format_percent, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9_]+(\.[0-9_]+)?\s*%$"}),
]
Compression = Annotated[
    str,
    PlainValidator(mended(_check_compression)),
    WithJsonSchema({"type": "string", "pattern": r"^(zstd|brotli)(:-?[0-9]+)?$|^(snappy|none)$"}),
]
OnShortfall = Literal["fail", "keep"]
OnBadRows = Literal["fail", "skip", "quarantine"]


# --- The schema -------------------------------------------------------------------------------------------------------


class HubDataset(Section):
    """The files of one split of a dataset on the hub, as the `datasets` library finds them."""

    dataset: Annotated[str, AfterValidator(mended(_check_repository))] = Field(
        description="The dataset's repository on the hub: OWNER/NAME.", examples=["HuggingFaceFW/fineweb-2"]
    )
    config: Text | None = Field(
        default=None, description="The dataset's configuration, where it has several.", examples=["deu_Latn"]
    )
    split: Text = Field(default="train", description="The dataset's split.", examples=["train"])
    revision: Text | None = Field(
        default=None,
        description="The full commit, 40 hexadecimal digits; needed without `allow_unpinned`.",
        examples=["c292233c833e336628618a88a648727eb3dff0a7"],
    )


_ONE_SOURCE = {"anyOf": [{"type": "string"}, HubDataset.model_json_schema()]}

Source = Annotated[
    Annotated[Annotated[str, AfterValidator(mended(_check_source))], Tag(f"{UNSHOWN}path")]
    | Annotated[HubDataset, Tag(f"{UNSHOWN}dataset")],
    Discriminator(_kind_of_source),
]
Sources = Annotated[
    tuple[Source, ...],
    BeforeValidator(mended(_to_sources)),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [*_ONE_SOURCE["anyOf"], {"type": "array", "items": _ONE_SOURCE, "minItems": 1}]}),
]


class TokenizerConfig(Section):
    """The tokenizer that the budgets are counted with."""

    path: Text = Field(
        description="A `tokenizer.json` or a folder that has one, on any filesystem that Beam knows; or the id of a "
        "hub repository, which needs `revision`.",
        examples=["./tokenizer.json", "EleutherAI/gpt-neox-20b"],
    )
    revision: str | None = Field(
        default=None,
        description="The full commit of the hub repository, 40 hexadecimal digits: required for a hub id, an error for "
        "a path.",
        examples=["c292233c833e336628618a88a648727eb3dff0a7"],
    )
    bos_token: Text | None = Field(
        default=None,
        description="The token that `records.add_bos` adds, where no `tokenizer_config.json` names it.",
        examples=["<|bos|>"],
    )
    eos_token: Text | None = Field(
        default=None,
        description="The token that `records.add_eos` adds, where no `tokenizer_config.json` names it.",
        examples=["<|eos|>"],
    )
    special_tokens: Literal["text", "token"] = Field(
        default="text",
        description="What becomes of a special token's string in a document: encoded as plain text, or as the token.",
        examples=["token"],
    )

    @property
    def is_hub_id(self) -> bool:
        """Whether `path` is the id of a hub repository rather than a path."""
        return _is_hub_id(self.path)

    @classmethod
    def _cross_checks(cls, given: Mapping[str, Any]) -> Iterator[Problem]:
        path, revision = given.get("path"), given.get("revision")
        if not isinstance(path, str) or not path or not isinstance(revision, str | None):
            return
        if path.lower().startswith(("hf://", "http://", "https://")):
            what = f"{shown(path)} is no path of a tokenizer; write the hub id alone, OWNER/NAME, with `revision:`"
            yield Problem(("path",), what)
        elif not _is_hub_id(path):
            if revision is not None:
                what = f"{shown(revision)} pins nothing, as {shown(path)} is a path and no hub id; remove `revision`"
                yield Problem(("revision",), what)
        elif not COMMIT.fullmatch(revision or ""):
            state = (
                "has no `revision`" if revision is None else f"has revision {shown(revision)}, which is no full commit"
            )
            yield Problem(
                ("path",) if revision is None else ("revision",),
                f"the hub tokenizer {shown(path)} {state}; write the 40 hexadecimal digits that "
                f"`git ls-remote https://huggingface.co/{path} HEAD` prints, or {shown('./' + path)} for a local path",
            )


class RecordsConfig(Section):
    """What one record of a shard holds."""

    format: Literal["tokens", "text", "parquet"] = Field(
        default="tokens",
        description="`tokens`: a `tf.train.Example` with an int64_list of ids. `text`: one with a bytes_list of UTF-8 "
        "text. `parquet`: parquet files of text with the source's other columns.",
        examples=["text"],
    )
    max_tokens: int = Field(
        default=2048,
        ge=1,
        le=2**31 - 1,
        description="The most ids in a record, BOS and EOS included; a longer document takes several records. For "
        "`format: tokens` only: a record of text is a document.",
        examples=["4096"],
    )
    add_bos: bool = Field(
        default=False,
        description="Put the BOS id before each document; it counts as a token. For `format: tokens` only.",
        examples=["true"],
    )
    add_eos: bool = Field(
        default=False,
        description="Put the EOS id after each document; it counts as a token. For `format: tokens` only.",
        examples=["true"],
    )

    @classmethod
    def _cross_checks(cls, given: Mapping[str, Any]) -> Iterator[Problem]:
        written = given.get("format")
        if written not in ("text", "parquet"):
            return
        for key in ("add_bos", "add_eos"):
            if given.get(key) is True:
                yield Problem(
                    (key,),
                    f"true cannot go with `records.format: {written}`, which holds no ids; write {key}: false and let "
                    f"the trainer add them (MaxText: {key}=true), or write format: tokens",
                )


class ShardsConfig(Section):
    """How the ArrayRecord shards are cut and compressed."""

    target_size: TargetSize = Field(
        default=512 * 2**20,
        description="About how large the file of one shard gets, by the text that goes into it. With the output in a "
        "bucket, each process takes up to twice that of local disk, in the folder that `TMPDIR` names; `plan` tells, "
        "and a shard is not begun without it.",
        examples=["64KiB"],
    )
    compression: Compression = Field(
        default="zstd",
        description="`zstd`, `brotli`, `snappy` or `none`. The first two may have a level: zstd −131072 to 22 (3 "
        "without one), brotli 0 to 11 (6 without one).",
        examples=["zstd:9"],
    )
    group_size: int = Field(
        default=1,
        ge=1,
        le=_MAX_GROUP_SIZE,
        description="Records that are compressed together. More compress better, and read slower at random, as "
        "training reads.",
        examples=["16"],
    )


class DatasetConfig(Section):
    """One dataset of the mix."""

    share: Share | None = Field(
        default=None,
        description="Its part of `total_tokens`. All datasets have a `share`, or all `tokens`.",
        examples=["30%"],
    )
    tokens: Budget | None = Field(
        default=None, description="Its train tokens. All datasets have a `share`, or all `tokens`.", examples=["60B"]
    )
    eval_tokens: Count = Field(
        default=0,
        description="Its held-out tokens, right after the train tokens and in addition to them.",
        examples=["10M"],
    )
    source: Sources = Field(
        description="Its parquet files, on any filesystem that Beam knows or on the hub; `*`, `?` and `[0-9]` match as "
        "in a shell. A hub dataset as below.",
        examples=[
            "corpora/german/*.parquet",
            "[a/*.parquet, b/*.parquet]",
            "hf://datasets/OWNER/NAME@REVISION/path/*.parquet",
        ],
    )
    allow_unpinned: bool = Field(
        default=False,
        description="Take hub sources that name no full commit as they are now; the manifest has the commit.",
        examples=["true"],
    )
    text_column: Text = Field(default="text", description="The column that holds the documents.", examples=["content"])
    order: Literal["sequential", "shuffled"] = Field(
        default="sequential",
        description="The order of row groups: that of file names, or a permutation by the mix's `seed`.",
        examples=["shuffled"],
    )
    on_shortfall: OnShortfall | None = Field(
        default=None, description="As the mix's `on_shortfall`, which it overrides.", examples=["keep"]
    )
    on_bad_rows: OnBadRows | None = Field(
        default=None, description="As the mix's `on_bad_rows`, which it overrides.", examples=["fail"]
    )

    @classmethod
    def _cross_checks(cls, given: Mapping[str, Any]) -> Iterator[Problem]:
        share, tokens = given.get("share"), given.get("tokens")
        if share is not None and tokens is not None:
            yield Problem((), f"has both share {shown(share)} and tokens {shown(tokens)}; remove one of them")
        if share is None and tokens is None:
            yield Problem((), "has neither share nor tokens; add `share: 30%` (of total_tokens) or `tokens: 60B`")
        if given.get("allow_unpinned") is not True:
            yield from _unpinned(given.get("source"))

    @property
    def paths(self) -> tuple[str, ...]:
        """The source as paths and globs, which `load_config` has pinned."""
        return tuple(source for source in self.source if isinstance(source, str))


class MixConfig(ConfigFile):
    """A mix of datasets, each with an exact budget of tokens. `load_config` makes one from a file."""

    name: Name = Field(description="The name of the mix.", examples=["my-mix"])
    tokenizer: TokenizerConfig = Field(
        description="The tokenizer that budgets are counted with.", examples=["{path: ./tokenizer.json}"]
    )
    total_tokens: Budget | None = Field(
        default=None,
        description="The train tokens of all datasets together. Required with shares; where datasets have `tokens` it "
        "may be left out, and must be their sum.",
        examples=["200B"],
    )
    records: RecordsConfig = Field(
        default=RecordsConfig(), description="What one record holds.", examples=["{add_eos: true}"]
    )
    shards: ShardsConfig = Field(
        default=ShardsConfig(),
        description="How shards are cut and compressed.",
        examples=["{target_size: 1GiB}"],
    )
    on_shortfall: OnShortfall = Field(
        default="fail",
        description="When a source ends before its budget: `fail`, and publish nothing of it; or `keep` what there is, "
        "and say so.",
        examples=["keep"],
    )
    on_bad_rows: OnBadRows = Field(
        default="skip",
        description="Rows whose text is null, empty or not UTF-8: `fail` at the first that is read; `skip` and count "
        "them; or `quarantine`, which also writes them, with the reasons, beside the dataset.",
        examples=["quarantine"],
    )
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="For `order: shuffled`.", examples=["42"])
    datasets: dict[DatasetName, DatasetConfig] = Field(
        min_length=1,
        description="The datasets by name; each name is a folder of the output. No two may differ by case alone.",
        examples=["{german: {share: 100%, source: german/*.parquet}}"],
    )

    _source_root: str = PrivateAttr(default="")

    def budgets(self) -> dict[str, DatasetBudget]:
        """The exact budget of each dataset, in the order of the config.

        Shares become whole numbers that add up to `total_tokens` by the largest remainder (`apportion`).
        """
        train = {name: dataset.tokens or 0 for name, dataset in self.datasets.items()}
        if self.total_tokens is not None:
            shares = {name: dataset.share for name, dataset in self.datasets.items() if dataset.share is not None}
            train |= apportion(self.total_tokens, shares) if shares else {}
        return {name: DatasetBudget(train[name], dataset.eval_tokens) for name, dataset in self.datasets.items()}

    def shortfall(self, dataset: str) -> OnShortfall:
        """What to do when the source of `dataset` ends before its budget."""
        return self.datasets[dataset].on_shortfall or self.on_shortfall

    def bad_rows(self, dataset: str) -> OnBadRows:
        """What to do with rows of `dataset` that hold no text."""
        return self.datasets[dataset].on_bad_rows or self.on_bad_rows

    def with_source_root(self, root: str) -> Self:
        """The same config, whose hub files are read below `root`, as `broetchen download --to root` puts them there."""
        config = self.model_copy()
        config._source_root = root.rstrip("/") or "/"
        return config

    def resolve(self, path: str) -> str:
        """`path` as the config means it: relative paths start at the config's folder, be it local or remote.

        Absolute paths and those with a scheme (`gs://…`, `hf://…`) stay as they are; `~` is the user's home. A config
        that comes from no file starts at the working directory.
        """
        if path.startswith("hf://") and self._source_root:
            return posixpath.join(self._source_root, path.removeprefix("hf://"))
        return resolve_path(self._folder, path)

    def tokenizer_path(self) -> str:
        """Where the tokenizer is: a hub id as it is, and a path resolved against the config's folder."""
        return self.tokenizer.path if self.tokenizer.is_hub_id else self.resolve(self.tokenizer.path)

    def sources(self, dataset: str) -> tuple[str, ...]:
        """The paths and globs of `dataset`, resolved against the config's folder."""
        return tuple(self.resolve(source) for source in self.datasets[dataset].paths)

    def as_written(self) -> dict[str, Any]:
        """The config in plain JSON types, for a manifest: paths as they were written, not resolved.

        It is complete (defaults spelled out, quantities as integers, overrides applied), so that it means the same in a
        later version with other defaults; `MixConfig.model_validate` takes it back.
        """
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def _cross_checks(cls, given: Mapping[str, Any]) -> Iterator[Problem]:
        datasets = given.get("datasets")
        if not isinstance(datasets, Mapping) or not datasets:
            return
        yield from _same_names(datasets)
        total = given.get("total_tokens")
        shares = {name: share for name, dataset in datasets.items() if (share := _given(dataset, "share")) is not None}
        tokens = {name: count for name, dataset in datasets.items() if (count := _given(dataset, "tokens")) is not None}
        if shares.keys() - tokens.keys() and tokens.keys() - shares.keys():
            yield Problem(
                ("datasets",),
                f"mixes share ({listed(shares)}) and tokens ({listed(tokens)}); give all "
                "datasets a share, with total_tokens, or all of them tokens",
            )
        elif shares and not tokens:
            if total is None:
                yield Problem(("total_tokens",), "is missing, and shares are shares of it; add `total_tokens: 200B`")
            yield from _share_problems(total, shares, complete=len(shares) == len(datasets))
        elif len(tokens) == len(datasets) and not shares and total is not None:
            yield from _sum_problems(total, tokens)


def _same_names(datasets: Mapping[str, Any]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for name in map(str, datasets):
        other = first.setdefault(name.lower(), name)
        if other != name:
            yield Problem(
                ("datasets", name),
                f"differs from {shown(other)} by case alone, and some filesystems hold them for the same; rename one",
            )


def _share_problems(total: Any, shares: Mapping[str, Any], *, complete: bool) -> Iterator[Problem]:
    exact = {name: _or_none(_parse_share, share) for name, share in shares.items()}
    known = {name: share for name, share in exact.items() if share is not None}
    if not complete or len(known) != len(exact):
        return  # Reported where it is; a sum without it would only confuse.
    whole = sum(known.values(), Fraction(0))
    if whole != 1:
        most = [f"{name} {format_percent(share)}" for name, share in itertools.islice(known.items(), _MOST_NAMED)]
        parts = " + ".join(most) + (" + …" if len(known) > len(most) else "")
        off = f"{format_percent(abs(1 - whole))} too {'much' if whole > 1 else 'little'}"
        yield Problem(
            ("datasets",), f"has shares that add up to {format_percent(whole)}, {off}; make them 100%: {parts}"
        )
        return
    tokens = _or_none(_parse_budget, total)
    if tokens is None:
        return
    for name, budget in apportion(tokens, known).items():
        if budget == 0:
            yield Problem(
                ("datasets", name, "share"),
                f"{format_percent(known[name])} of total_tokens {format_count(tokens)} is a budget of 0 tokens; raise "
                "one of the two, or leave the dataset out",
            )


def _sum_problems(total: Any, tokens: Mapping[str, Any]) -> Iterator[Problem]:
    wanted = _or_none(_parse_budget, total)
    counts = [_or_none(_parse_budget, count) for count in tokens.values()]
    known = [count for count in counts if count is not None]
    if wanted is not None and len(known) == len(counts) and sum(known) != wanted:
        yield Problem(
            ("total_tokens",),
            f"{shown(total)} is not the sum of the datasets' tokens, {format_count(sum(known))}; write that, or leave "
            "total_tokens out",
        )


def _given(dataset: Any, key: str) -> Any:
    written = dataset.model_dump(mode="json") if isinstance(dataset, DatasetConfig) else dataset
    return written.get(key) if isinstance(written, Mapping) else None


def _or_none[T](parse: Callable[[Any], T], value: Any) -> T | None:
    try:
        return parse(value)
    except UsageError:
        return None


def load_config(path: str | os.PathLike[str], *, overrides: Mapping[str, Any] | None = None) -> MixConfig:
    """Reads and checks a mix config.

    Args:
      path: a YAML file, local or on a filesystem that Beam knows (`gs://…`).
      overrides: values by dotted key, as `--set KEY=VALUE` gives them: `{"total_tokens": "400000", "records.format":
        "text", "datasets.german.share": "30%"}`. Text is read as the same text in the file would be (`true`, `null`,
        `[a, b]`); other values are taken as they are. They are checked like the file's own.

    Raises:
      UsageError: the file is not there, is no YAML, or breaks the schema; the message has a line for each error.
      BroetchenError: the hub does not tell what an unpinned source, or one by name of dataset, is.
    """
    from beam_pipelines.hub_sources import with_pinned_sources

    return with_pinned_sources(section_of(MixConfig, open_document(_KIND, path, overrides)))
