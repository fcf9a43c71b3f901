"""The manifest: what a finished dataset is, and all that is needed to build the same bytes again.

It is written last. A folder without one is not a dataset. It holds no times, machines or engines, so that two builds
of the same config can be compared file by file.
"""

from __future__ import annotations

import operator
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pydantic

from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.tokenizer.spec import TokenizerSpec

NAME = "manifest.json"

# What readers of a manifest take from its config.
_USED = {"records": ("format", "max_tokens"), "dataset": ("tokens", "on_shortfall", "text_column")}


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class ShardEntry(_Part):
    """One shard file; `documents` counts those with at least one token in it."""

    file: str
    tokens: int
    documents: int
    records: int
    bytes: int
    sha256: str


class SplitEntry(_Part):
    """One split. `missing` is not 0 only where the config keeps a short source."""

    budget: int
    tokens: int
    missing: int
    documents: int
    records: int
    bytes: int
    documents_put_back: int = 0
    shards: Sequence[ShardEntry]


class SourceEntry(_Part):
    """One source file, and the row groups whose documents may be in the dataset."""

    path: str
    size: int
    footer_sha256: str
    checksum: str | None
    row_groups: Sequence[int]


class QuarantineEntry(_Part):
    """One file of rows that were left out, with how many by reason; `file` is relative to the dataset's folder."""

    file: str
    rows: Mapping[str, int]
    bytes: int
    sha256: str


class TokenizerEntry(_Part):
    """The tokenizer; `path` is relative to the dataset's folder, and an id is None where it is not added."""

    path: str
    sha256: str
    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    special_tokens: str


class Manifest(_Part):
    """See the module. `skipped` counts the source's rows that were left out, by reason; `quarantine` has them."""

    format: Literal["broetchen-dataset"] = "broetchen-dataset"
    format_version: int
    mix: str
    dataset: str
    fingerprint: str
    config: Mapping[str, Any]
    tokenizer: TokenizerEntry
    splits: Mapping[str, SplitEntry]
    skipped: Mapping[str, int]
    quarantine: Sequence[QuarantineEntry] = pydantic.Field(default=(), exclude_if=operator.not_)
    source: Sequence[SourceEntry]
    versions: Mapping[str, str]

    @pydantic.field_validator("config")
    @classmethod
    def _has_what_is_used(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        for section, keys in _USED.items():
            if missing := [key for key in keys if key not in config.get(section, {})]:
                raise ValueError(f"it lacks {section}.{missing[0]}")
        return config


def manifest_path(folder: str) -> str:
    """Where the manifest of the dataset in `folder` lies."""
    return posixpath.join(folder, NAME)


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Makes a dataset of `folder`, whose shards are all in place."""
    storage.write_bytes(manifest_path(folder), (manifest.model_dump_json(indent=1) + "\n").encode())


def read_manifest(folder: str) -> Manifest | None:
    """The manifest of a dataset's folder, or None where there is none.

    Raises:
        BroetchenError: it is damaged, or of another version of the format.
    """
    path = manifest_path(folder)
    if not storage.exists(path):
        return None
    try:
        return Manifest.model_validate_json(storage.read_bytes(path))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise BroetchenError(
            f"{path}: not a manifest that this version reads ({where}: {first['msg']}); "
            "build the dataset again with --overwrite"
        ) from error


def find_manifests(output: str) -> dict[str, Manifest]:
    """The finished datasets of an output, or the one dataset that `output` itself is, by folder.

    Raises:
        BroetchenError: there is none.
    """
    folders = (
        [output]
        if storage.exists(manifest_path(output))
        else [posixpath.dirname(path) for path, _ in storage.list_files(posixpath.join(output, "*", NAME))]
    )
    found = {folder: manifest for folder in folders if (manifest := read_manifest(folder))}
    if not found:
        raise BroetchenError(
            f"{output}: no finished dataset here (no {NAME} in it or one folder below); build it first"
        )
    return found


def tokenizer_of(folder: str, manifest: Manifest) -> TokenizerSpec:
    """The tokenizer of a dataset, as it lies beside the datasets; it adds no BOS or EOS."""
    tokenizer = manifest.tokenizer
    return TokenizerSpec(
        path=posixpath.normpath(posixpath.join(folder, tokenizer.path))
        if storage.is_local(folder)
        else (posixpath.join(posixpath.dirname(folder), tokenizer.path.removeprefix("../"))),
        sha256=tokenizer.sha256,
        bos_token=None,
        eos_token=None,
        special_tokens="token" if tokenizer.special_tokens == "token" else "text",
    )
