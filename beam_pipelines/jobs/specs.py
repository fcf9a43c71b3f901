"""From a mix config to the specs of its datasets: resolved paths, exact budgets, and a tokenizer beside the output."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from beam_pipelines.config.budgets import DatasetBudget
from beam_pipelines.config.mix import MixConfig
from transforms.arrayrecord.records import MOST_TOKENS, RecordSpec, file_extensions
from transforms.card.mix import CardMix, digest_of
from transforms.card.write import NAMES as CARD_NAMES
from transforms.config.document import Problem
from transforms.dataset.trace import trace_name, traced_columns
from transforms.encoding.pool import know_tokenizer
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.parquet.exclusion import Exclusion, file_sha256
from transforms.parquet.row_filter import RowFilter
from transforms.patterns import divided, fixed_folder, matches
from transforms.recipe.spec import DatasetSpec
from transforms.tokenizer.file import TokenizerFile, load_tokenizer, special_tokens_of
from transforms.tokenizer.spec import Engine, TokenizerSpec

SPLITS = ("train", "eval")
_QUARANTINED = "_quarantine/bad-rows-00000.parquet"
_TRACED = trace_name("train-00000-of-00001.parquet")


def chosen_datasets(config: MixConfig, wanted: Sequence[str]) -> list[str]:
    """The datasets to work on, in the config's order: those wanted, or all.

    Raises:
        UsageError: the config has no such dataset, or its source is on a filesystem that cannot be read.
    """
    unknown = [name for name in wanted if name not in config.datasets]
    if unknown:
        raise UsageError(f"--dataset {unknown[0]}: the config has no such dataset; it has {', '.join(config.datasets)}")
    names = [name for name in config.datasets if not wanted or name in wanted]
    for name in names:
        for source in config.sources(name):
            storage.check_scheme(source)
    return names


def load_config_tokenizer(config: MixConfig) -> TokenizerFile:
    """The config's tokenizer, checked against the needs of `records`.

    Raises:
        UsageError: it cannot be loaded, or has no token that `records.add_bos` or `add_eos` adds.
    """
    tokenizer = read_config_tokenizer(
        config, bos_token=config.tokenizer.bos_token, eos_token=config.tokenizer.eos_token
    )
    for kind, added, known in (
        ("bos", config.records.add_bos, tokenizer.bos_id),
        ("eos", config.records.add_eos, tokenizer.eos_id),
    ):
        if added and known is None:
            what = (
                f"is true, but {config.tokenizer_path()} names no {kind.upper()} token: set tokenizer.{kind}_token to "
                f"one of its tokens, or records.add_{kind}: false{special_tokens_of(tokenizer)}"
            )
            raise config.usage_error(Problem(("records", f"add_{kind}"), what))
    return tokenizer


def read_config_tokenizer(
    config: MixConfig, *, bos_token: str | None = None, eos_token: str | None = None
) -> TokenizerFile:
    """The config's tokenizer.

    Args:
        bos_token, eos_token: see `load_tokenizer`.

    Raises:
        UsageError: it cannot be loaded; the message has the line in the config.
        BroetchenError: the hub cannot be reached.
    """
    path, revision = config.tokenizer_path(), config.tokenizer.revision
    try:
        return load_tokenizer(path, revision=revision, bos_token=bos_token, eos_token=eos_token)
    except UsageError as error:
        raise config.usage_error(Problem(("tokenizer", error.key or "path"), str(error))) from error


def tokenizer_path(tokenizer: TokenizerFile, output: str) -> str:
    """The path of a tokenizer beside the datasets built with it, under its hash: workers and trainers find it there."""
    return posixpath.join(output, f"tokenizer-{tokenizer.sha256[:12]}", "tokenizer.json")


def keep_tokenizer(tokenizer: TokenizerFile, output: str) -> str:
    """Puts the tokenizer beside the output; returns its path, which is `tokenizer_path`."""
    path = tokenizer_path(tokenizer, output)
    config_path = posixpath.join(posixpath.dirname(path), "tokenizer_config.json")
    for part, content in ((path, tokenizer.json), (config_path, tokenizer.config_json)):
        if content is not None and not storage.exists(part):
            storage.write_bytes(part, content.encode())
    return path


def dataset_specs(
    config: MixConfig,
    datasets: Sequence[str],
    tokenizer: TokenizerFile,
    *,
    output: str,
    engine: Engine,
    overwrite: bool,
    grow: str | None = None,
) -> list[DatasetSpec]:
    """The specs by which `datasets` are built, in their order.

    Nothing is written. The tokenizer has to lie at `tokenizer_path` before a step encodes in another process; this one
    need not load it again.
    """
    budgets = config.budgets()
    records = config.records
    known = TokenizerSpec(
        path=tokenizer_path(tokenizer, output),
        sha256=tokenizer.sha256,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        special_tokens=config.tokenizer.special_tokens,
    )
    know_tokenizer(known, tokenizer)
    written = config.as_written()
    _check_apart(config, datasets, output)

    def spec_of(name: str) -> DatasetSpec:
        dataset, budget = config.datasets[name], budgets[name]
        on_shortfall, on_bad_rows = config.shortfall(name), config.bad_rows(name)
        rows = row_filter(config, name)
        return DatasetSpec(
            name=name,
            mix=config.name,
            sources=config.sources(name),
            source_roots=tuple(
                (fixed_folder(config.resolve_source(source)), fixed_folder(source)) for source in dataset.paths
            ),
            text_column=dataset.text_column,
            order=dataset.order,
            seed=config.seed,
            budgets=_in_stream_order(budget, dataset.eval_position),
            on_shortfall=on_shortfall,
            rows=rows,
            on_bad_rows=on_bad_rows,
            records=RecordSpec(
                format=records.format,
                max_tokens=MOST_TOKENS if records.format == "megatron" else records.max_tokens,
                bos_id=tokenizer.bos_id if records.add_bos else None,
                eos_id=tokenizer.eos_id if records.add_eos else None,
                vocab_size=tokenizer.vocab_size,
            ),
            target_size=config.shards.target_size,
            max_records=config.shards.max_records,
            group_size=config.shards.group_size,
            compression=config.shards.compression,
            tokenizer=known,
            engine=engine,
            output=output,
            trace=records.trace,
            trace_columns=traced_columns(f"dataset {name}", dataset.trace_columns, dataset.text_column),
            config=_deciding_config(written, name, budget.train, on_shortfall, on_bad_rows, rows),
            overwrite=overwrite,
            max_repeats=dataset.max_repeats or 1.0,
            grow=None if grow is None else storage.without_slash(grow),
        )

    return [spec_of(name) for name in datasets]


def _in_stream_order(budget: DatasetBudget, eval_position: str) -> dict[str, int]:
    train, held_out = {"train": budget.train}, {"eval": budget.eval} if budget.eval else {}
    return held_out | train if eval_position == "start" else train | held_out


def row_filter(config: MixConfig, name: str) -> RowFilter | None:
    """Which rows of a dataset's source are wanted; None for all. The list of values to exclude is read for its hash.

    Raises:
        BroetchenError: the list cannot be read.
    """
    dataset = config.datasets[name]
    exclude = None
    if dataset.exclude is not None:
        path = config.resolve(dataset.exclude.values)
        storage.check_scheme(path)
        exclude = Exclusion(dataset.exclude.column, path, file_sha256(path))
    return RowFilter.of(dataset.predicates, exclude)


def card_mix(config: MixConfig, tokenizer: TokenizerFile) -> CardMix:
    """The parts of the config's card; the tokenizer is at `tokenizer_path` of the output."""
    written, budgets = config.as_written(), config.budgets()
    decided = {}
    for name in config.datasets:
        # A dataset that is not built here may name a list that is not there: the card does without it.
        with contextlib.suppress(BroetchenError):
            rows, shortfall, bad_rows = row_filter(config, name), config.shortfall(name), config.bad_rows(name)
            decided[name] = digest_of(_deciding_config(written, name, budgets[name].train, shortfall, bad_rows, rows))
    # In a copy of the folder, or on another machine, the tokenizer is found by no other path; one of the hub is.
    beside = {} if config.tokenizer.is_hub_id else {"path": tokenizer_path(tokenizer, ".")}
    return CardMix(written | {"tokenizer": written["tokenizer"] | beside}, decided, tokenizer.sha256)


def _check_apart(config: MixConfig, datasets: Sequence[str], output: str) -> None:
    """Checks that no source matches the files that the build itself writes, which a later build would read.

    Raises:
        UsageError: one will.
    """
    endings = file_extensions(config.records.format)
    files = [f"{split}-00000-of-00001.{ending}" for split in SPLITS for ending in endings]
    beside = (*files, _QUARANTINED, _TRACED)
    written = [posixpath.join(output, name, file) for name in config.datasets for file in beside]
    written += [posixpath.join(output, file) for file in CARD_NAMES]
    for name in datasets:
        for source, pattern in zip(config.datasets[name].paths, config.sources(name), strict=True):
            if any(_will_match(pattern, path) for path in written):
                what = (
                    f"{source} would also match what is built at {output}; choose an --output elsewhere, or a narrower "
                    "source"
                )
                raise config.usage_error(Problem(("datasets", name, "source"), what))


def _will_match(pattern: str, path: str) -> bool:
    folder, parts = divided(pattern)
    if storage.is_local(folder) and storage.is_local(path):
        folder, path = os.path.realpath(folder or "."), os.path.realpath(path)
    prefix = folder.rstrip("/") + "/"
    return path.startswith(prefix) and matches(parts, path.removeprefix(prefix).split("/"))


def _deciding_config(
    written: Mapping[str, Any],
    name: str,
    train_tokens: int,
    on_shortfall: str,
    on_bad_rows: str,
    rows: RowFilter | None,
) -> dict[str, object]:
    """The part of a config that decides the bytes of one dataset: not the other datasets, nor where things lie.

    Args:
        written: the whole config (`MixConfig.as_written`).
        name: of the dataset; the rest is its part of the config.
    """
    undecided = ("share", "tokens", "on_bad_rows", "allow_unpinned", "license", "language", "eval_position")
    dataset = {key: value for key, value in written["datasets"][name].items() if key not in undecided}
    # The same as without it.
    if dataset.get("max_repeats") == 1:
        del dataset["max_repeats"]
    # As if there was no such key where it changes nothing: a fingerprint is the same as before there was one.
    if written["datasets"][name]["eval_position"] == "start" and dataset["eval_tokens"]:
        dataset["eval_position"] = "start"
    records, shards = written["records"], written["shards"]
    if records["format"] == "parquet":
        shards = _without(shards, "max_records")
    if records["format"] == "megatron":
        records, shards = _without(records, "max_tokens"), _without(shards, "max_records", "compression", "group_size")
    # A build that fails on bad rows, if it does not, writes the bytes of one that skips them.
    if on_bad_rows == "quarantine":
        dataset["on_bad_rows"] = "quarantine"
    if rows is not None and rows.exclude is not None:
        dataset["exclude"] = {**dataset["exclude"], "sha256": rows.exclude.sha256}
    return {
        "records": records,
        "shards": shards,
        "special_tokens": written["tokenizer"]["special_tokens"],
        "seed": written["seed"],
        "dataset": dataset | {"tokens": train_tokens, "on_shortfall": on_shortfall},
    }


def _without(section: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A section of a config without keys that decide nothing."""
    return {key: value for key, value in section.items() if key not in keys}
