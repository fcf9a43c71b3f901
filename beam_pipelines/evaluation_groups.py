"""The data of an evaluation: groups of parquet files, as the command line and mix configs name them."""

from __future__ import annotations

from collections.abc import Sequence

from beam_pipelines.dataset_specs import chosen_datasets
from beam_pipelines.mix_config import load_config
from transforms import files
from transforms.errors import UsageError
from transforms.named_tokenizers import split_name
from transforms.read_footers import TextSource

ALL = "All"
"""The name of all groups together, which no group has."""


def read_groups(data: Sequence[str], text_column: str = "text") -> list[TextSource]:
    """Groups as the command line gives them: globs, `NAME=GLOB`, or a mix config, whose datasets are its groups.

    Globs without a name make one group, "data"; several of the same name make one too.

    Raises:
        UsageError: there is none, a name is taken twice or reserved, or a config cannot be read.
    """
    patterns: dict[str, list[str]] = {}
    configured: dict[str, TextSource] = {}
    for one in data:
        if one.endswith((".yaml", ".yml")):
            config = load_config(one)
            for name in chosen_datasets(config, ()):
                if name in configured:
                    raise UsageError(f"--data {one}: another config has a dataset {name!r} too; give one of them")
                configured[name] = TextSource(name, tuple(config.sources(name)), config.datasets[name].text_column)
            continue
        given_name, pattern = split_name(one)
        name = given_name or "data"
        if not pattern.strip():
            raise UsageError(f"--data {one!r}: names no file; write --data NAME=FOLDER/*.parquet")
        files.check_scheme(pattern)
        patterns.setdefault(name, []).append(pattern)
    both = next((name for name in patterns if name in configured), None)
    if both:
        raise UsageError(f"--data {both}=…: a config has a dataset {both!r} too; take another name")
    groups = [*configured.values(), *(TextSource(name, tuple(some), text_column) for name, some in patterns.items())]
    if not groups:
        raise UsageError("no data to evaluate on: add --data NAME=FOLDER/*.parquet, or --data CONFIG.yaml")
    if any(group.name == ALL for group in groups):
        raise UsageError(f"--data {ALL}=…: {ALL} is the name for all groups together; take another one")
    return groups
