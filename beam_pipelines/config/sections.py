"""The sections of a mix config: the tokenizer, records, shards, and one dataset."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from beam_pipelines.config.filters import ExcludeConfig, Filters
from beam_pipelines.config.sources import Sources, unpinned
from beam_pipelines.config.values import Budget, Compression, Count, Languages, License, Repeats, Share, TargetSize
from transforms.arrayrecord.options import MOST_GROUPED
from transforms.arrayrecord.record_format import MOST_TOKENS, Format
from transforms.config.document import Problem
from transforms.config.section import Section, Text
from transforms.dataset.manifest import EvalPosition, OnBadRows, Order, Shortfall
from transforms.files.hub_path import COMMIT
from transforms.predicates import Predicate, alternatives
from transforms.quantities import shown
from transforms.tokenizer.spec import SpecialTokens, is_hub_id

_MAX_RECORDS = 2**31 - 1


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
    special_tokens: SpecialTokens = Field(
        default="text",
        description="Whether a special token's string in a document is encoded as plain `text`, or as the `token`.",
        examples=["token"],
    )

    @property
    def is_hub_id(self) -> bool:
        """Whether `path` is the id of a hub repository rather than a path."""
        return is_hub_id(self.path)

    @classmethod
    def _cross_checks(cls, given: Mapping[str, Any]) -> Iterator[Problem]:
        path, revision = given.get("path"), given.get("revision")
        if not isinstance(path, str) or not path or not isinstance(revision, str | None):
            return
        if path.lower().startswith(("hf://", "http://", "https://")):
            problem = f"{shown(path)} is no path of a tokenizer; write the hub id alone, OWNER/NAME, with `revision:`"
            yield Problem(("path",), problem)
        elif not is_hub_id(path):
            if revision is not None:
                problem = f"{shown(revision)} pins nothing, as {shown(path)} is a path and no hub id; remove `revision`"
                yield Problem(("revision",), problem)
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
    """The content of one record of a shard."""

    format: Format = Field(
        default="tokens",
        description="`tokens`: a `tf.train.Example` with an int64_list of ids. `text`: one with a bytes_list of UTF-8 "
        "text. `parquet`: parquet files of text with the source's other columns. `megatron`: pairs of `.bin` and "
        "`.idx` as Megatron-LM, NeMo and MaxText's `mmap_npy` read them, with whole documents of ids.",
        examples=["text", "megatron"],
    )
    max_tokens: int = Field(
        default=2048,
        ge=1,
        le=MOST_TOKENS,
        description="The most ids in a record, BOS and EOS included; a longer document takes several records. For "
        "`format: tokens` only: in the others a record is a document.",
        examples=["4096"],
    )
    add_bos: bool = Field(
        default=False,
        description="Put the BOS id before each document; it counts as a token. For `format: tokens` and `megatron`.",
        examples=["true"],
    )
    add_eos: bool = Field(
        default=False,
        description="Put the EOS id after each document; it counts as a token. For `format: tokens` and `megatron`.",
        examples=["true"],
    )
    trace: bool = Field(
        default=False,
        exclude_if=operator.not_,  # Manifests and fingerprints are as they were before there was this key.
        description="Write beside each shard where the document of each record stands in the source, as docs/trace.md "
        "tells.",
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
                    f"the trainer add them (MaxText: {key}=true), or write format: tokens or megatron",
                )


class ShardsConfig(Section):
    """How the shards are cut and compressed."""

    target_size: TargetSize = Field(
        default=512 * 2**20,
        description="About how large the file of one shard gets, by the text that goes into it. With the output in a "
        "bucket, each process takes up to twice that of local disk, in the folder that `TMPDIR` names; `plan` tells, "
        "and a shard is not begun without it.",
        examples=["64KiB"],
    )
    max_records: int = Field(
        default=25_000,
        ge=1,
        le=_MAX_RECORDS,
        description="About how many records a shard holds at most, by the rows and the text in the footers: a reader "
        "takes time in proportion to them for each record that it reads at random. A shard ends where this or "
        "`target_size` is reached first. For `format: tokens` and `text`.",
        examples=["100000"],
    )
    compression: Compression = Field(
        default="zstd",
        description="`zstd`, `brotli`, `snappy` or `none`. The first two may have a level: zstd −131072 to 22 (3 "
        "without one), brotli 0 to 11 (6 without one). Not for `format: megatron`, which has no compression.",
        examples=["zstd:9"],
    )
    group_size: int = Field(
        default=1,
        ge=1,
        le=MOST_GROUPED,
        description="Records that are compressed together, in ArrayRecord (`format: tokens` and `text`). 16 take some "
        "15 % fewer bytes than 1. Read at random, as "
        "training reads, larger groups are slower in a small shard (64 take four times as long at 10,000 records) and "
        "faster in a large one (16 from 50,000 records on, 64 from 100,000). Grain logs an error for all but 1.",
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
        description="Its held-out tokens, in addition to the train tokens; `eval_position` says which.",
        examples=["10M"],
    )
    eval_position: EvalPosition = Field(
        default="end",
        description="Which tokens are held out: those right after the train tokens, or `start`, the first of all, "
        "which no larger build of the same source ever trains on.",
        examples=["start"],
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
    filters: Filters | None = Field(
        default=None,
        description="Which of its rows are wanted: predicates `[column, op, value]` that must all hold, or several "
        "lists of them, one of which must. They act before the budget is cut. See below.",
        examples=['[[language_score, ">=", 0.9], [is_truncated, "==", false]]'],
    )
    exclude: ExcludeConfig | None = Field(
        default=None,
        description="Rows that are left out by a list of values, such as a take-down. See below.",
        examples=["{column: id, values: takedown.parquet}"],
    )
    trace_columns: tuple[Text, ...] = Field(
        default=(),
        strict=False,
        exclude_if=operator.not_,
        description="Other columns of the source that go into the trace, null where a file lacks them. For "
        "`records.trace: true` only.",
        examples=["[id, url, license]"],
    )
    order: Order = Field(
        default="sequential",
        description="The order of row groups: that of file names, or a permutation by the mix's `seed`.",
        examples=["shuffled"],
    )
    on_shortfall: Shortfall | None = Field(
        default=None, description="As the mix's `on_shortfall`, which it overrides.", examples=["keep"]
    )
    max_repeats: Repeats | None = Field(
        default=None,
        description="How often a training may read the dataset at most, where its source is smaller than its budget: "
        "the source is then written once, and the manifest says how many passes its budget takes. 1 without it: a "
        "source has to hold its budget.",
        examples=["4", "2.5"],
    )
    on_bad_rows: OnBadRows | None = Field(
        default=None, description="As the mix's `on_bad_rows`, which it overrides.", examples=["fail"]
    )
    license: License | None = Field(
        default=None,
        description="The license of its source, for the output's card, by the hub's name for it where it has one. It "
        "changes no byte of the dataset.",
        examples=["odc-by"],
    )
    language: Languages | None = Field(
        default=None,
        description="Its language or languages, likewise: codes of two or three letters by ISO 639, or `code`.",
        examples=["de", "[de, en]"],
    )

    @classmethod
    def _cross_checks(cls, given: Mapping[str, Any]) -> Iterator[Problem]:
        share, tokens = given.get("share"), given.get("tokens")
        if share is not None and tokens is not None:
            yield Problem((), f"has both share {shown(share)} and tokens {shown(tokens)}; remove one of them")
        if share is None and tokens is None:
            yield Problem((), "has neither share nor tokens; add `share: 30%` (of total_tokens) or `tokens: 60B`")
        if given.get("allow_unpinned") is not True:
            yield from unpinned(given.get("source"))

    @property
    def predicates(self) -> list[list[Predicate]]:
        """The lists of predicates of `filters`, one of which must hold; none where all rows are wanted."""
        return alternatives(self.filters)

    @property
    def paths(self) -> tuple[str, ...]:
        """The source as paths and globs, which `load_config` has pinned."""
        return tuple(source for source in self.source if isinstance(source, str))
