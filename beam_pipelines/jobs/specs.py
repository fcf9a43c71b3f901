"""From a mix config to what the pipeline builds: resolved paths, exact budgets, and a tokenizer beside the output."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from beam_pipelines.config.mix import MixConfig
from transforms.arrayrecord.records import RecordSpec
from transforms.encoding.pool import know_tokenizer
from transforms.errors import UsageError
from transforms.files import storage as files
from transforms.recipe.spec import DatasetSpec
from transforms.tokenizer.file import TokenizerFile, load_tokenizer
from transforms.tokenizer.spec import Engine, TokenizerSpec

SPLITS = ("train", "eval")


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
            files.check_scheme(source)
    return names


def load_config_tokenizer(config: MixConfig) -> TokenizerFile:
    """The config's tokenizer, checked against what `records` asks of it.

    Raises:
        UsageError: it cannot be loaded, or has no token that `records.add_bos` or `add_eos` adds.
    """
    given = config.tokenizer
    tokenizer = load_tokenizer(
        config.tokenizer_path(), revision=given.revision, bos_token=given.bos_token, eos_token=given.eos_token
    )
    for kind, added, known in (
        ("bos", config.records.add_bos, tokenizer.bos_id),
        ("eos", config.records.add_eos, tokenizer.eos_id),
    ):
        if added and known is None:
            raise UsageError(
                f"records.add_{kind} is true, but {config.tokenizer_path()} names no {kind.upper()} token: "
                f"set tokenizer.{kind}_token to one of its tokens, or records.add_{kind}: false"
            )
    return tokenizer


def keep_tokenizer(tokenizer: TokenizerFile, output: str) -> str:
    """Puts the tokenizer beside the output, under its hash, where workers and trainers find it; returns its path."""
    folder = posixpath.join(output, f"tokenizer-{tokenizer.sha256[:12]}")
    parts = {"tokenizer.json": tokenizer.json, "tokenizer_config.json": tokenizer.config_json}
    for name, content in parts.items():
        path = posixpath.join(folder, name)
        if content is not None and not files.exists(path):
            files.write_bytes(path, content.encode())
    return posixpath.join(folder, "tokenizer.json")


def tokenizer_spec(config: MixConfig, tokenizer: TokenizerFile, path: str) -> TokenizerSpec:
    """The tokenizer as the pipeline's steps need it, at `path`; this process needs not load it again."""
    spec = TokenizerSpec(
        path=path,
        sha256=tokenizer.sha256,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        special_tokens=config.tokenizer.special_tokens,
    )
    know_tokenizer(spec, tokenizer)
    return spec


def dataset_specs(
    config: MixConfig,
    datasets: Sequence[str],
    tokenizer: TokenizerFile,
    tokenizer_path: str,
    *,
    output: str,
    engine: Engine,
    overwrite: bool,
) -> dict[str, DatasetSpec]:
    """What each of `datasets` is built from, by name."""
    budgets = config.budgets()
    records = config.records
    specs = {}
    for name in datasets:
        dataset = config.datasets[name]
        specs[name] = DatasetSpec(
            name=name,
            mix=config.name,
            sources=config.sources(name),
            source_roots=tuple(
                (files.fixed_folder(config.resolve(source)), files.fixed_folder(source)) for source in dataset.paths
            ),
            text_column=dataset.text_column,
            order=dataset.order,
            seed=config.seed,
            budgets={"train": budgets[name].train} | ({"eval": budgets[name].eval} if budgets[name].eval else {}),
            on_shortfall=config.shortfall(name),
            on_bad_rows=config.bad_rows(name),
            records=RecordSpec(
                format=records.format,
                max_tokens=records.max_tokens,
                bos_id=tokenizer.bos_id if records.add_bos else None,
                eos_id=tokenizer.eos_id if records.add_eos else None,
            ),
            target_size=config.shards.target_size,
            group_size=config.shards.group_size,
            compression=config.shards.compression,
            tokenizer=tokenizer_spec(config, tokenizer, tokenizer_path),
            engine=engine,
            output=output,
            config=_deciding_config(config, name),
            overwrite=overwrite,
        )
    return specs


def _deciding_config(config: MixConfig, name: str) -> dict[str, object]:
    """The part of the config that decides the bytes of one dataset: not the other datasets, nor where things lie."""
    written, budget = config.as_written(), config.budgets()[name]
    undecided = ("share", "tokens", "on_bad_rows", "allow_unpinned")
    dataset = {key: value for key, value in written["datasets"][name].items() if key not in undecided}
    # A build that fails on bad rows, if it does not, writes the bytes of one that skips them.
    if config.bad_rows(name) == "quarantine":
        dataset["on_bad_rows"] = "quarantine"
    return {
        "records": written["records"],
        "shards": written["shards"],
        "special_tokens": config.tokenizer.special_tokens,
        "seed": config.seed,
        "dataset": dataset | {"tokens": budget.train, "on_shortfall": config.shortfall(name)},
    }
