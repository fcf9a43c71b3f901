"""The mix config: which datasets, in which shares, tokenized how, written how.

A config is a YAML file (`docs/config.md` lists every key). `load_config` reads it from any filesystem that Beam knows
and checks all of it before anything starts: an error names the file, the line, the key and the value and says how to
mend it, and one message holds all the errors of a file.

This module does not import Apache Beam, unless a config lies on a remote filesystem: `broetchen --help` stays quick.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import Field, PrivateAttr

from beam_pipelines.config.budgets import DatasetBudget, budget_problems
from beam_pipelines.config.hub import pinned_datasets
from beam_pipelines.config.sections import DatasetConfig, RecordsConfig, ShardsConfig, TokenizerConfig
from beam_pipelines.config.values import Budget, DatasetName
from transforms.budget.apportion import apportion
from transforms.config.document import ConfigKind, Problem
from transforms.config.file import ConfigFile, open_document, resolve_path, resolve_pattern, section_of
from transforms.config.section import Name
from transforms.dataset.manifest import OnBadRows, Shortfall
from transforms.errors import BroetchenError, UnreachableError
from transforms.files import storage
from transforms.patterns import quoted
from transforms.quantities import shown

_KIND = ConfigKind(
    "mix config",
    "mix_configs/demo.yaml",
    floats=True,
    keys=frozenset({"datasets", "total_tokens", "records", "shards"}),
    others=(
        (
            frozenset({"data", "model", "parameters"}),
            "is a training config, which `broetchen train` takes; name a mix config here, see docs/config.md",
        ),
    ),
)


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
        default=RecordsConfig(), description="The content of one record.", examples=["{add_eos: true}"]
    )
    shards: ShardsConfig = Field(
        default=ShardsConfig(),
        description="How shards are cut and compressed.",
        examples=["{target_size: 1GiB}"],
    )
    on_shortfall: Shortfall = Field(
        default="fail",
        description="When a source ends before its budget: `fail`, and publish nothing of it; or `keep` what there is, "
        "and say so.",
        examples=["keep"],
    )
    on_bad_rows: OnBadRows = Field(
        default="skip",
        description="Rows whose text is null, empty, not UTF-8, or with more than 16 MiB in one piece: `fail` at the "
        "first that is read; `skip` and count them; or `quarantine`, which also writes them, with the reasons, beside "
        "the dataset.",
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

    def shortfall(self, dataset: str) -> Shortfall:
        """The `on_shortfall` of `dataset`: its own, or that of the mix."""
        return self.datasets[dataset].on_shortfall or self.on_shortfall

    def bad_rows(self, dataset: str) -> OnBadRows:
        """The `on_bad_rows` of `dataset`: its own, or that of the mix."""
        return self.datasets[dataset].on_bad_rows or self.on_bad_rows

    def with_source_root(self, root: str) -> Self:
        """The same config, whose hub files are read below `root`, as `broetchen download --to root` puts them there."""
        config = self.model_copy()
        config._source_root = storage.without_slash(root)
        return config

    def resolve(self, path: str) -> str:
        """`path` as the config means it: relative paths start at the config's folder, be it local or remote.

        Absolute paths and those with a scheme (`gs://…`, `hf://…`) stay as they are; `~` is the user's home. A config
        that comes from no file starts at the working directory.
        """
        return source_path(path, self._folder, self._source_root)

    def resolve_source(self, source: str) -> str:
        """The glob pattern that a source is when it is opened: as `resolve`, with the folders before it as names."""
        return source_pattern(source, self._folder, self._source_root)

    def tokenizer_path(self) -> str:
        """Where the tokenizer is: a hub id as it is, and a path resolved against the config's folder."""
        return self.tokenizer.path if self.tokenizer.is_hub_id else self.resolve(self.tokenizer.path)

    def sources(self, dataset: str) -> tuple[str, ...]:
        """The paths and globs of `dataset`, resolved against the config's folder."""
        return tuple(self.resolve_source(source) for source in self.datasets[dataset].paths)

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
        yield from _untraced(datasets, given.get("records"))
        shares, tokens = _given(datasets, "share"), _given(datasets, "tokens")
        yield from budget_problems(given.get("total_tokens"), shares, tokens, len(datasets))


def source_path(path: str, folder: str, source_root: str = "") -> str:
    """`path` as a config in `folder` means it, where the hub's files are read below `source_root`, if that is given."""
    if path.startswith("hf://") and source_root:
        return posixpath.join(source_root, path.removeprefix("hf://"))
    return resolve_path(folder, path)


def source_pattern(source: str, folder: str, source_root: str = "") -> str:
    """The same of a glob pattern: the folders that are put before it are names."""
    if source.startswith("hf://") and source_root:
        return posixpath.join(quoted(source_root), source.removeprefix("hf://"))
    return resolve_pattern(folder, source)


def _same_names(datasets: Mapping[str, Any]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for name in map(str, datasets):
        other = first.setdefault(name.lower(), name)
        if other != name:
            yield Problem(
                ("datasets", name),
                f"differs from {shown(other)} by case alone, and some filesystems hold them for the same; rename one",
            )


def _untraced(datasets: Mapping[str, Any], records: Any) -> Iterator[Problem]:
    given = records.model_dump() if isinstance(records, RecordsConfig) else records
    if not isinstance(given, Mapping) or given.get("trace") is not True:
        for name in (name for name, columns in _given(datasets, "trace_columns").items() if columns):
            yield Problem(
                ("datasets", name, "trace_columns"),
                "has no trace to go into; write `records: {trace: true}`, or leave it out",
            )


def _given(datasets: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The values of a key in the datasets that have it, by name."""
    written = {
        name: dataset.model_dump(mode="json") if isinstance(dataset, DatasetConfig) else dataset
        for name, dataset in datasets.items()
    }
    return {
        name: dataset[key]
        for name, dataset in written.items()
        if isinstance(dataset, Mapping) and dataset.get(key) is not None
    }


def load_config(
    path: str | os.PathLike[str], *, overrides: Mapping[str, Any] | None = None, given_as: str = "--set"
) -> MixConfig:
    """Reads and checks a mix config.

    Args:
        path: a YAML file, local or on a filesystem that Beam knows (`gs://…`).
        overrides: values by dotted key, as `--set KEY=VALUE` gives them: `{"total_tokens": "400000", "records.format":
            "text", "datasets.german.share": "30%"}`. Text is read as the same text in the file would be (`true`,
            `null`, `[a, b]`); other values are taken as they are. They are checked like the file's own.
        given_as: the name of an override in errors.

    Raises:
        UsageError: the file is not there, is no YAML, or breaks the schema; the message has a line for each error.
            So has that of sources that the hub does not know.
        BroetchenError: the hub does not answer.
    """
    config = section_of(MixConfig, open_document(_KIND, path, overrides, given_as=given_as))
    pinned, problems = dict[str, DatasetConfig](), list[Problem]()
    for name, dataset in config.datasets.items():
        try:
            pinned |= pinned_datasets({name: dataset})
        except UnreachableError:
            raise
        except BroetchenError as error:
            problems.append(Problem(("datasets", name, "source"), str(error)))
    if problems:
        raise config.usage_error(*problems)
    return config.model_copy(update={"datasets": pinned})
