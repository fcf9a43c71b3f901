"""The manifest describes a finished dataset, with all that is needed to build the same bytes again.

It is written last. A folder without one is not a dataset. It holds no times, machines or engines, so that two builds
of the same config can be compared file by file.

A manifest may come from anywhere, and is not believed: one from `read_manifest` has the types below, names that fit
their patterns, numbers that are finite and from 0 to 2⁶³ − 1, and no sum beyond. Before a file that it names is opened,
`transforms.files.untrusted.check_regular` has to see it.
"""

from __future__ import annotations

import math
import operator
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, TypedDict, get_args

import pydantic
from pydantic_core import CoreSchema, core_schema

from transforms.arrayrecord.record_format import MOST_TOKENS, Format, holds_ids
from transforms.budget.repeats import MOST_REPEATS
from transforms.errors import BroetchenError, one_line, without_controls
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.files.untrusted import check_regular, parse_json, read_bounded
from transforms.tokenizer.spec import SpecialTokens, TokenizerSpec

NAME = "manifest.json"

MOST_BYTES = 256 << 20
"""The most bytes of a manifest; a larger one is not read."""

NEWEST_FORMAT = 2
"""The latest `format_version` that is read."""

_END = 2**63
_MOST_CONFIG_DEPTH = 32
_MOST_SAID = 200
_INSIDE = re.compile(r"\.\.(/(?!\.\.?(/|$))[A-Za-z0-9._-]+)+")

# The choices that a config has, and a manifest tells of.
EvalPosition = Literal["end", "start"]
OnBadRows = Literal["fail", "skip", "quarantine"]
Order = Literal["sequential", "shuffled"]
Shortfall = Literal["fail", "keep"]

Count = Annotated[int, pydantic.Field(ge=0, lt=_END)]
TokenId = Annotated[int, pydantic.Field(ge=0, lt=2**32)]
Hash = Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]
TextHash = Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{16}$")]
Name = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=256)]
Reason = Annotated[str, pydantic.Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Text = Annotated[str, pydantic.Field(max_length=8192)]
Path = Annotated[Text, pydantic.Field(min_length=1)]
_SHARD = r"^[A-Za-z0-9][A-Za-z0-9._-]*-[0-9]{5,9}-of-[0-9]{5,9}"
ShardName = Annotated[str, pydantic.Field(pattern=_SHARD + r"\.(arecord|parquet|bin)$", max_length=300)]
FileName = Annotated[str, pydantic.Field(pattern=_SHARD + r"(\.[A-Za-z0-9_]+){1,3}$", max_length=300)]
TraceName = Annotated[str, pydantic.Field(pattern=_SHARD.replace("^", "^_trace/") + r"\.parquet$", max_length=300)]
QuarantineName = Annotated[str, pydantic.Field(pattern=r"^_quarantine/bad-rows-[0-9]{5,9}\.parquet$")]


class _FailFast:
    """Finds the first fault of a list, and not millions."""

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.list_schema(handler.generate_schema(get_args(source)[0]), fail_fast=True)


_FAIL_FAST = _FailFast()


def _is_none(value: object) -> bool:
    return value is None


class _Records(TypedDict):
    format: Format
    max_tokens: NotRequired[Annotated[int, pydantic.Field(ge=1, lt=2**31)]]
    trace: NotRequired[bool]


class _Dataset(TypedDict):
    tokens: Count
    on_shortfall: Shortfall
    text_column: Text
    eval_tokens: NotRequired[Count | None]
    eval_position: NotRequired[EvalPosition]
    on_bad_rows: NotRequired[OnBadRows]
    max_repeats: NotRequired[Annotated[float, pydantic.Field(ge=1, le=MOST_REPEATS)]]
    trace_columns: NotRequired[Sequence[Text]]


class _Config(TypedDict):
    """The part of its config that readers of a manifest use; there is more in it."""

    records: _Records
    dataset: _Dataset


_CONFIG = pydantic.TypeAdapter(_Config)


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Part):
    """A file beside a shard that belongs to it, such as an index."""

    file: FileName
    bytes: Count
    sha256: Hash


class TraceEntry(_Part):
    """The trace of a shard (`transforms.dataset.trace`); `file` is relative to the dataset's folder."""

    file: TraceName
    bytes: Count
    sha256: Hash


class ShardEntry(_Part):
    """One shard file; `documents` counts those with at least one token in it.

    `documents_with_special_strings` counts, of text, those that hold the string of a special token; None where that was
    not written down.
    """

    file: ShardName
    tokens: Count
    documents: Count
    records: Count
    bytes: Count
    sha256: Hash
    beside: Annotated[Sequence[FileEntry], _FAIL_FAST] = pydantic.Field(default=(), exclude_if=operator.not_)
    trace: TraceEntry | None = pydantic.Field(default=None, exclude_if=operator.not_)
    documents_with_special_strings: Count | None = pydantic.Field(default=None, exclude_if=_is_none)


class SplitEntry(_Part):
    """One split.

    `missing` is not 0 only where the config keeps a short source. `passes` is how often a training has to read its
    `tokens` for its `budget`, less those `missing`; None for a single time. `documents_with_special_strings` is the
    sum of its shards'.
    """

    budget: Count
    tokens: Count
    missing: Count
    documents: Count
    records: Count
    bytes: Count
    documents_put_back: Count = 0
    documents_with_special_strings: Count | None = pydantic.Field(default=None, exclude_if=_is_none)
    passes: float | None = pydantic.Field(default=None, gt=0, le=1e9, allow_inf_nan=False, exclude_if=_is_none)
    shards: Annotated[Sequence[ShardEntry], _FAIL_FAST]

    @property
    def to_read(self) -> int:
        """Tokens that all passes of a training read: `tokens`, unless it is to be repeated."""
        return self.tokens if self.passes is None else self.budget - self.missing


class SourceEntry(_Part):
    """One source file, and the row groups whose documents may be in the dataset.

    Attributes:
        starts: where each of `row_groups` begins in the stream of all splits of the dataset, in tokens where the
            shards hold ids, else in documents; empty where that was not written down (format version 1).
        texts: XXH3-64 over the texts of each row group's documents up to the cut, 16 hexadecimal digits; likewise.
        left_out: rows of each row group that were left out, by reason; empty where there are none in all of the file.
    """

    path: Path
    size: Count
    footer_sha256: Hash
    checksum: Text | None
    row_groups: Annotated[Sequence[Count], _FAIL_FAST]
    starts: Annotated[Sequence[Count], _FAIL_FAST] = pydantic.Field(default=(), exclude_if=operator.not_)
    texts: Annotated[Sequence[TextHash], _FAIL_FAST] = pydantic.Field(default=(), exclude_if=operator.not_)
    left_out: Annotated[Sequence[Mapping[Reason, Count]], _FAIL_FAST] = pydantic.Field(
        default=(), exclude_if=operator.not_
    )

    @pydantic.model_validator(mode="after")
    def _are_parallel(self) -> SourceEntry:
        for name, found in (("starts", self.starts), ("texts", self.texts), ("left_out", self.left_out)):
            if found and len(found) != len(self.row_groups):
                raise ValueError(f"{len(found):,} {name} are not one for each of {len(self.row_groups):,} row groups")
        return self


class QuarantineEntry(_Part):
    """One file of rows that were left out, with how many by reason; `file` is relative to the dataset's folder."""

    file: QuarantineName
    rows: Mapping[Reason, Count]
    bytes: Count
    sha256: Hash


class TokenizerEntry(_Part):
    """The tokenizer; `path` is relative to the dataset's folder, and an id is None where it is not added."""

    path: Path
    sha256: Hash
    vocab_size: TokenId
    bos_id: TokenId | None
    eos_id: TokenId | None
    special_tokens: SpecialTokens


class Manifest(_Part):
    """See the module.

    Attributes:
        rows: of the source, up to the row of the document of the cut, those that were left out included; None where
            that was not written down (format version 1).
        skipped: rows that were left out since they hold no text, by reason; `quarantine` has them.
        filtered: rows that a filter left out.
    """

    format: Literal["broetchen-dataset"] = "broetchen-dataset"
    format_version: int = pydantic.Field(ge=1, le=NEWEST_FORMAT)
    mix: Name
    dataset: Name
    fingerprint: Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{0,64}$")]
    config: Mapping[str, Any]
    tokenizer: TokenizerEntry
    splits: Mapping[Name, SplitEntry]
    rows: Count | None = pydantic.Field(default=None, exclude_if=_is_none)
    skipped: Mapping[Reason, Count]
    filtered: Count = pydantic.Field(default=0, exclude_if=operator.not_)
    quarantine: Annotated[Sequence[QuarantineEntry], _FAIL_FAST] = pydantic.Field(default=(), exclude_if=operator.not_)
    source: Annotated[Sequence[SourceEntry], _FAIL_FAST]
    versions: Mapping[Name, Text]

    @property
    def record_format(self) -> Format:
        """The format of its shards' records."""
        found: Format = self.config["records"]["format"]
        return found

    @property
    def holds_ids(self) -> bool:
        """Whether its shards hold ids; else they hold text."""
        return holds_ids(self.record_format)

    @property
    def max_tokens(self) -> int:
        """Ids that a record of ids may have."""
        return int(self.config["records"].get("max_tokens", MOST_TOKENS))

    @property
    def text_column(self) -> str:
        """The column of the source, and of shards in parquet, that holds the text."""
        return str(self.config["dataset"]["text_column"])

    @property
    def is_traced(self) -> bool:
        """Whether each shard has a trace."""
        return bool(self.config["records"].get("trace"))

    @property
    def trace_columns(self) -> tuple[str, ...]:
        """Columns of the source that traces hold."""
        return tuple(self.config["dataset"].get("trace_columns", ()))

    @property
    def max_repeats(self) -> float | None:
        """How often a training may read a source that is smaller than its budget; None where it may not be smaller."""
        return self.config["dataset"].get("max_repeats")

    @pydantic.field_validator("config")
    @classmethod
    def _has_what_is_used(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        _check_config(config)
        try:
            _CONFIG.validate_python(config, strict=True)
        except pydantic.ValidationError as error:
            where, what = _first(error)
            raise ValueError(f"it lacks {where}" if what == "Field required" else f"{where}: {what}") from error
        # No document is cut in Megatron's format.
        if config["records"]["format"] != "megatron" and "max_tokens" not in config["records"]:
            raise ValueError("it lacks records.max_tokens")
        return config

    @pydantic.model_validator(mode="after")
    def _is_of_its_version(self) -> Manifest:
        if self.format_version == 1 and (newer := next(self._newer_keys(), None)):
            raise ValueError(f"{newer} is no key of format version 1")
        return self

    @pydantic.model_validator(mode="after")
    def _adds_up(self) -> Manifest:
        for part in ("tokens", "documents", "records", "bytes"):
            splits = list(self.splits.values())
            of_shards = sum(getattr(shard, part) for split in splits for shard in split.shards)
            if max(of_shards, sum(getattr(split, part) for split in splits)) >= _END:
                raise ValueError(f"its {part} add up to more than 64 bits hold")
        return self

    def _newer_keys(self) -> Iterator[str]:
        yield from sorted(self.model_fields_set & {"rows", "filtered"})
        for split in self.splits.values():
            yield from sorted(split.model_fields_set & {"passes", "documents_with_special_strings"})
            for shard in split.shards:
                yield from sorted(shard.model_fields_set & {"beside", "trace", "documents_with_special_strings"})
        for source in self.source:
            yield from sorted(source.model_fields_set & {"starts", "texts", "left_out"})


def _check_config(config: Mapping[str, Any]) -> None:
    """Checks the parts of the config that are not used: they are shown, compared and written down again."""
    level: list[Any] = [config]
    for _ in range(_MOST_CONFIG_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                below += value.values()
            elif isinstance(value, list | tuple):
                below += value
            elif isinstance(value, int) and not -_END <= value < _END:
                raise ValueError("it has a whole number of more than 64 bits")
            elif isinstance(value, float) and not math.isfinite(value):
                raise ValueError("it has a number that is not finite")
        if not (level := below):
            return
    raise ValueError("it is nested too deep")


def manifest_path(folder: str) -> str:
    """Where the manifest of the dataset in `folder` lies."""
    return posixpath.join(folder, NAME)


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Makes a dataset of `folder`, whose shards are all in place."""
    storage.write_bytes(manifest_path(folder), (manifest.model_dump_json(indent=1) + "\n").encode())


def read_manifest(folder: str) -> Manifest | None:
    """The manifest of a dataset's folder, or None where there is none.

    Raises:
        BroetchenError: it is damaged, larger than `MOST_BYTES`, no regular file, or of a newer version of the format.
    """
    path = manifest_path(folder)
    if not storage.exists(path):
        return None
    try:
        content = parse_json(read_bounded(path, MOST_BYTES))
        _check_version(path, content)
        return Manifest.model_validate(content, strict=True)
    except pydantic.ValidationError as error:
        where, what = _first(error)
        raise _unread(path, where, what) from error
    except ValueError as error:
        raise _unread(path, "", str(error)) from error


def _check_version(path: str, content: Any) -> None:
    version = content.get("format_version") if isinstance(content, dict) else None
    if type(version) is int and NEWEST_FORMAT < version < _END and content.get("format") == "broetchen-dataset":
        raise BroetchenError(f"{path}: written by a newer version of Brötchen (format version {version}); update it")


def _first(error: pydantic.ValidationError) -> tuple[str, str]:
    """The place of the first fault, and the fault."""
    first = error.errors(include_input=False, include_url=False)[0]
    return ".".join(map(str, first["loc"])), first["msg"]


def _unread(path: str, where: str, what: str) -> BroetchenError:
    # Keys of the content are a part of it.
    said = one_line(f"{where or 'the whole'}: {what}")
    shown = said if len(said) <= _MOST_SAID else f"{said[:_MOST_SAID]}…"
    return BroetchenError(
        f"{path}: not a manifest that this version reads ({shown}); build the dataset again with --overwrite"
    )


def find_manifests(output: str) -> dict[str, Manifest]:
    """The finished datasets of an output, or the one dataset that `output` itself is, by folder.

    Raises:
        BroetchenError: there is none.
    """
    output = storage.without_slash(output)
    folders = (
        [output]
        if storage.exists(manifest_path(output))
        else [posixpath.dirname(path) for path, _ in list_files(output, f"*/{NAME}")]
    )
    for folder in folders:
        # It stands in messages, of one line each.
        name = posixpath.basename(folder)
        if folder != output and ("\n" in name or without_controls(name) != name):
            raise BroetchenError(f"{output}: has a folder with control characters in its name, {name!r}; rename it")
    manifests = {folder: manifest for folder in folders if (manifest := read_manifest(folder))}
    if not manifests:
        raise BroetchenError(
            f"{output}: no finished dataset here (no {NAME} in it or one folder below); build it first"
        )
    return manifests


def tokenizer_of(folder: str, manifest: Manifest) -> TokenizerSpec:
    """The tokenizer of a dataset, as it lies beside the datasets; it adds no BOS or EOS.

    A path that the manifest gives is followed within the folder of the datasets alone. Where it leads elsewhere, the
    tokenizer is looked for where a build puts it.

    Raises:
        BroetchenError: the file is no regular one, or leads out of the folder of the datasets.
    """
    tokenizer = manifest.tokenizer
    usual = f"../tokenizer-{tokenizer.sha256[:12]}/tokenizer.json"
    given = tokenizer.path if _INSIDE.fullmatch(tokenizer.path) else usual
    if storage.is_local(folder):
        path, output = (posixpath.normpath(posixpath.join(folder, one)) for one in (given, ".."))
        for beside in (path, posixpath.join(posixpath.dirname(path), "tokenizer_config.json")):
            check_regular(beside, within=output)
    else:
        path = posixpath.join(posixpath.dirname(folder), given.removeprefix("../"))
    return TokenizerSpec(
        path=path,
        sha256=tokenizer.sha256,
        bos_token=None,
        eos_token=None,
        special_tokens=tokenizer.special_tokens,
    )
