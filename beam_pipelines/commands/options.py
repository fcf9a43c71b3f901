"""The options that several commands have, and how settings and mix configs are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from beam_pipelines.console.layout import OutputFormat
from transforms.errors import UsageError
from transforms.tokenizer.spec import Engine

if TYPE_CHECKING:
    from beam_pipelines.config.mix import MixConfig

Config = Annotated[str, typer.Argument(metavar="CONFIG", help="The mix config, a YAML file; see docs/config.md.")]
Datasets = Annotated[
    list[str] | None,
    typer.Option("--dataset", metavar="NAME", help="Only this dataset of the config; may be given several times."),
]
EngineOption = Annotated[
    Engine,
    typer.Option(
        help="The encoder. auto takes gigatoken where it can load the tokenizer and agrees with it on a sample."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Overrides a key of the config, e.g. --set total_tokens=1M."),
]
Ledger = Annotated[
    str | None,
    typer.Option(metavar="URI", help="A folder that keeps counts of sources, so that none is counted twice."),
]
SourceRoot = Annotated[
    str | None,
    typer.Option(metavar="URI", help="Read the hub's files from here, where [bold]broetchen download[/] has put them."),
]
TableFormat = Annotated[OutputFormat, typer.Option("--format", help="How the table is printed.")]
Debug = Annotated[bool, typer.Option("--debug", help="Tracebacks, and all of Beam's log.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no hints: results, warnings and errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
OutputFile = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the result to a file as well.")
]


def overrides_of(settings: Sequence[str] | None, example: str) -> dict[str, str]:
    """The values of a config's keys that `--set KEY=VALUE` gives.

    >>> overrides_of(["total_tokens=1M", "tokenizer.path=a=b"], "total_tokens=1M")
    {'total_tokens': '1M', 'tokenizer.path': 'a=b'}

    Raises:
        UsageError: a setting is not of that form; `example` is one that is.
    """
    overrides = {}
    for setting in settings or ():
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise UsageError(f"--set {setting}: not of the form KEY=VALUE, such as --set {example}")
        overrides[key] = value
    return overrides


def load_mix(config: str, settings: Sequence[str] | None, source_root: str | None = None) -> MixConfig:
    """The mix config with `--set` and `--source-root` in it.

    Raises:
        UsageError: a setting or the config cannot be used.
    """
    from beam_pipelines.config.mix import load_config

    mix = load_config(config, overrides=overrides_of(settings, "total_tokens=1M"))
    return mix if source_root is None else mix.with_source_root(source_root)
