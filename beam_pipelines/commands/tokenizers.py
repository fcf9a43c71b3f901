"""Commands that train tokenizers and compare them."""

from __future__ import annotations

import dataclasses
import os
from typing import Annotated, Literal

import typer

from beam_pipelines.commands.options import (
    Datasets,
    Debug,
    EngineOption,
    Json,
    OutputFile,
    Quiet,
    Settings,
    TableFormat,
    load_mix,
)
from beam_pipelines.commands.results import chosen_format, from_here, give, next_command
from beam_pipelines.console import terminal
from beam_pipelines.console.layout import print_json
from transforms.errors import UsageError


def train_tokenizer(
    what: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG_OR_URI",
            help="A vocabulary corpus: a folder that `broetchen vocab` has written, a folder or pattern of parquet "
            "files, or a mix config, of which the whole sources are read.",
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="URI", help="The folder for the tokenizer: local or gs://….")
    ],
    style: Annotated[
        Literal["gpt-neox", "gpt-4", "nanochat"], typer.Option(help="Normalizer and split; see docs/tokenizer.md.")
    ] = "gpt-4",
    trainer: Annotated[
        Literal["tokenizers", "gigatoken"],
        typer.Option(help="The trainer; the tokenizer is the same by each. gigatoken: style gpt-neox only."),
    ] = "tokenizers",
    vocab_size: Annotated[int, typer.Option(help="Of the tokenizer, special tokens included.")] = 65_536,
    dataset: Datasets = None,
    text_column: Annotated[str, typer.Option(help="Of parquet files that are no config's.")] = "text",
    eos_token: Annotated[str, typer.Option(help="The EOS token; name <|bos|> to have one token for both.")] = "<|eos|>",
    special_token: Annotated[
        list[str] | None, typer.Option(metavar="TOKEN", help="One more special token; may be given several times.")
    ] = None,
    max_bytes: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="The most text to take, e.g. 10GB; divided among the datasets."),
    ] = None,
    eval_data: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="Other text to check the tokenizer on, instead of documents kept out of the corpus."
        ),
    ] = None,
    check_all: Annotated[bool, typer.Option("--check-all", help="Check it on the whole corpus as well.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a tokenizer that is there.")] = False,
    settings: Settings = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a byte-level BPE tokenizer, check that no text is lost, and write what transformers and MaxText load."""
    terminal.start(debug=debug, quiet=quiet, hints=not as_json, takes_time=True)
    from beam_pipelines.tables.tokenizers import print_training, training_as_json
    from beam_pipelines.tokenizers import corpus as corpora
    from beam_pipelines.tokenizers import train as job
    from transforms.config.file import is_config
    from transforms.quantities import parse_size

    if is_config(what):
        corpus = corpora.corpus_of_config(load_mix(what, settings), dataset or ())
    else:
        corpus = corpora.corpus_at(what, dataset or (), text_column)
    if eval_data is not None:
        evaluation = corpora.corpus_at(eval_data, (), text_column)
        corpus = dataclasses.replace(corpus, evaluation=evaluation.parts)
    summary = job.train_tokenizer(
        corpus,
        output,
        style=style,
        trainer=trainer,
        vocab_size=vocab_size,
        eos_token=eos_token,
        more_special_tokens=special_token or (),
        max_bytes=None if max_bytes is None else parse_size(max_bytes),
        check_all=check_all,
        overwrite=overwrite,
        quiet=quiet,
    )
    if as_json:
        print_json(terminal.output(), training_as_json(summary))
    else:
        print_training(terminal.output(), summary)
    next_command("eval-tokenizer", output, "--data", eval_data or (what if is_config(what) else "GLOB"))


def eval_tokenizer(
    context: typer.Context,
    tokenizers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]TOKENIZER…",
            help="A tokenizer.json or its folder, OWNER/NAME@REVISION of the hub, a SentencePiece model, a .tiktoken.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]GLOB",
            help="Parquet files and their names, or a mix config; may be given several times.",
        ),
    ] = None,
    text_column: Annotated[str, typer.Option(metavar="NAME", help="The column of parquet files to read.")] = "text",
    with_public: Annotated[
        bool, typer.Option("--with-public", help="Add the public tokenizers that come with MaxText.")
    ] = False,
    engine: EngineOption = "auto",
    plot: Annotated[str | None, typer.Option(metavar="FILE", help="Draw a plot: a .png or .svg.")] = None,
    output_format: TableFormat = "table",
    as_json: Json = False,
    output: OutputFile = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Evaluate tokenizers on text, by language or dataset: fertility, compression, Rényi efficiency, speed and more.

    docs/evaluation.md says what each column means.
    """
    shape = chosen_format(output_format, as_json)
    terminal.start(debug=debug, quiet=quiet, hints=shape == "table", takes_time=True)
    from transforms.config.file import is_config
    from transforms.evaluation.tokenizers import split_name

    if as_json and (files := [given for given in tokenizers or () if _is_place_for_json(given)]):
        raise UsageError(f"{files[0]}: --json prints on standard output; a file for it goes after --output")
    from beam_pipelines.tables import evaluation_plot
    from beam_pipelines.tables import tokenizers as tables
    from beam_pipelines.tokenizers import evaluate as job

    if plot is not None:
        evaluation_plot.check_plot_path(plot)
    evaluation = job.evaluate(
        tokenizers or (),
        data or (),
        text_column=text_column,
        with_public=with_public,
        engine=engine,
        beam_arguments=context.args,
        quiet=quiet,
    )
    give(lambda console: tables.print_evaluation(console, evaluation, shape), output)
    if plot is not None:
        evaluation_plot.plot_evaluation(evaluation, plot)
    configs = [path for given in data or () if is_config(path := split_name(given)[1])]
    chosen = _as_settings(tokenizers[0]) if tokenizers else ["--set=tokenizer.path=TOKENIZER"]
    next_command("plan", configs[0] if configs else "CONFIG", *chosen)


def _is_place_for_json(given: str) -> bool:
    """Whether this, behind `--json`, is meant as a file to write: the name of one that is not there."""
    from transforms.evaluation.tokenizers import split_name
    from transforms.files.storage import is_local

    path = split_name(given)[1]
    return path.endswith(".json") and is_local(path) and not os.path.exists(path)


def _as_settings(given: str) -> list[str]:
    """A tokenizer of the command line as options that choose it for a config in any folder."""
    from transforms.evaluation.tokenizers import hub_revision, split_name

    path = split_name(given)[1]
    if hub := hub_revision(path):
        return [f"--set=tokenizer.path={hub[0]}", f"--set=tokenizer.revision={hub[1]}"]
    return [f"--set=tokenizer.path={from_here(path)}"]
