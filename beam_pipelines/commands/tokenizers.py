"""Commands that train tokenizers and compare them."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import typer

from beam_pipelines.commands.options import Datasets, Debug, EngineOption, Quiet, Settings, TableFormat, load_mix
from beam_pipelines.console import terminal


def train_tokenizer(
    what: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG_OR_URI",
            help="A vocabulary corpus: a folder that `broetchen vocab` has written, a folder or pattern of parquet "
            "files, or a mix config, of which the whole sources are read.",
        ),
    ],
    output: Annotated[str, typer.Option(metavar="URI", help="The folder for the tokenizer: local or gs://….")],
    style: Annotated[
        Literal["gpt-neox", "gpt-4", "nanochat"], typer.Option(help="Normalizer and split; see docs/tokenizer.md.")
    ] = "gpt-4",
    trainer: Annotated[
        Literal["tokenizers", "gigatoken"],
        typer.Option(help="What trains; the tokenizer is the same. gigatoken: style gpt-neox only."),
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
    check_all: Annotated[bool, typer.Option("--check-all", help="Check it on the whole corpus too.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a tokenizer that is there.")] = False,
    settings: Settings = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a byte-level BPE tokenizer, check that no text is lost, and write what transformers and MaxText load."""
    terminal.start(debug=debug)
    from beam_pipelines.tables.tokenizers import print_training
    from beam_pipelines.tokenizers import corpus as corpora
    from beam_pipelines.tokenizers import train as job
    from transforms.quantities import parse_size

    if what.endswith((".yaml", ".yml")):
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
    print_training(terminal.output(), summary)


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
            help="Parquet files and what to call them, or a mix config; may be given several times.",
        ),
    ] = None,
    text_column: Annotated[str, typer.Option(metavar="NAME", help="The column of parquet files to read.")] = "text",
    with_public: Annotated[
        bool, typer.Option("--with-public", help="Add the public tokenizers that come with MaxText.")
    ] = False,
    engine: EngineOption = "auto",
    plot: Annotated[str | None, typer.Option(metavar="FILE", help="Draw a plot: a .png or .svg.")] = None,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write all results as JSON.")] = None,
    output_format: TableFormat = "table",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Evaluate tokenizers on text, by language or dataset: fertility, compression, Rényi efficiency, speed and more.

    docs/evaluation.md says what each column means.
    """
    terminal.start(debug=debug)
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
    tables.print_evaluation(terminal.output(), evaluation, output_format)
    if json_file is not None:
        tables.write_json(evaluation, json_file)
    if plot is not None:
        evaluation_plot.plot_evaluation(evaluation, plot)
