"""The sections of a mix config: the tokenizer, records, shards, and one dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from beam_pipelines.config.sources import Sources, unpinned
from beam_pipelines.config.values import Budget, Compression, Count, Share, TargetSize
from transforms.config.document import Problem
from transforms.config.section import Section, Text
from transforms.files.hub_path import COMMIT, REPOSITORY
from transforms.quantities import shown

_MAX_GROUP_SIZE = 2**31 - 1

OnShortfall = Literal["fail", "keep"]
OnBadRows = Literal["fail", "skip", "quarantine"]


def _is_hub_id(path: str) -> bool:
    """Whether a tokenizer path names a repository of the hub, by its form alone: `gpt2`, `EleutherAI/gpt-neox-20b`."""
    return bool(REPOSITORY.fullmatch(path)) and not path.endswith(".json")


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
        description="Its held-out tokens, in addition to the train tokens; `eval_position` says which.",
        examples=["10M"],
    )
    eval_position: Literal["end", "start"] = Field(
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
            yield from unpinned(given.get("source"))

    @property
    def paths(self) -> tuple[str, ...]:
        """The source as paths and globs, which `load_config` has pinned."""
        return tuple(source for source in self.source if isinstance(source, str))
