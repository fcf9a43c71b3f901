"""The command line, `broetchen`.

Heavy imports wait until a command runs and its config is found good, so that `--help` and errors come at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from beam_pipelines import terminal
from transforms.errors import BroetchenError, UsageError

app = typer.Typer(
    name="broetchen",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Turns parquet text corpora into training data of an exact number of tokens: ArrayRecord shards that Grain "
    "and MaxText read.\n\nExit codes: 0 done, 1 the job failed, 2 bad usage or config.",
)


class _BeamCommand(TyperCommand):
    """A command that also takes all options of Beam, some hundred, and hands them on in `context.args`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {
            name: not getattr(parameter, "is_flag", False)
            for parameter in self.get_params(ctx)
            for name in [*parameter.opts, *parameter.secondary_opts]
        }
        beams: list[str] = []
        # Beam takes a second to import; most command lines have no option of its.
        if any(argument.startswith("--") and argument.partition("=")[0] not in own for argument in args):
            from beam_pipelines.runner_options import take_beam_options

            args, beams = take_beam_options(args, own)
        super().parse_args(ctx, args)
        ctx.args = beams
        return beams


# How Typer ends a command that Ctrl-C has stopped.
_INTERRUPTED = 130


class EngineChoice(StrEnum):
    """What encodes; the ids are the same."""

    auto = "auto"
    tokenizers = "tokenizers"
    gigatoken = "gigatoken"


class ContainerChoice(StrEnum):
    """What a text corpus is written as."""

    parquet = "parquet"
    arrayrecord = "arrayrecord"


class FormatChoice(StrEnum):
    """How a table is printed."""

    table = "table"
    json = "json"
    csv = "csv"


class StyleChoice(StrEnum):
    """How a tokenizer is put together."""

    gpt_neox = "gpt-neox"
    gpt_4 = "gpt-4"
    nanochat = "nanochat"


class TrainerChoice(StrEnum):
    """What trains a tokenizer; the tokenizer is the same."""

    tokenizers = "tokenizers"
    gigatoken = "gigatoken"


class TargetChoice(StrEnum):
    """Where a run trains."""

    local = "local"
    tpu_vm = "tpu-vm"
    xpk = "xpk"


class TrainAction(StrEnum):
    """What to do about a run."""

    start = "start"
    status = "status"
    logs = "logs"
    stop = "stop"
    delete = "delete"
    export = "export"


Config = Annotated[str, typer.Argument(metavar="CONFIG", help="The mix config, a YAML file; see docs/config.md.")]
Datasets = Annotated[
    list[str] | None,
    typer.Option("--dataset", metavar="NAME", help="Only this dataset of the config; may be given several times."),
]
EngineOption = Annotated[
    EngineChoice,
    typer.Option(
        help="What encodes. auto takes gigatoken where it can load the tokenizer and agrees with it on a sample."
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
TableFormat = Annotated[FormatChoice, typer.Option("--format", help="How the table is printed.")]
Debug = Annotated[bool, typer.Option("--debug", help="Tracebacks, and all of Beam's log.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


def _overrides(settings: Sequence[str] | None, example: str) -> dict[str, str]:
    overrides = {}
    for setting in settings or ():
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise UsageError(f"--set {setting}: not of the form KEY=VALUE, such as --set {example}")
        overrides[key] = value
    return overrides


def _load(config: str, settings: Sequence[str] | None, source_root: str | None = None) -> Any:
    from beam_pipelines.mix_config import load_config

    mix = load_config(config, overrides=_overrides(settings, "total_tokens=1M"))
    return mix if source_root is None else mix.with_source_root(source_root)


Output = Annotated[str, typer.Option(metavar="URI", help="Where the datasets go: a folder or gs://bucket/folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace datasets that another config left there.")]


@app.command(cls=_BeamCommand)
def build(
    context: typer.Context,
    config: Config,
    output: Output,
    dataset: Datasets = None,
    engine: EngineOption = EngineChoice.auto,
    overwrite: Overwrite = False,
    settings: Settings = None,
    source_root: SourceRoot = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Build the datasets of a mix, each to its exact token budget.

    A build that was stopped or killed is simply run again: finished shards are not redone. All options of Beam pass
    through, e.g. [bold]--direct_num_workers 4[/] or [bold]--runner DataflowRunner --project … --region …[/].
    """
    terminal.start(debug=debug)
    mix = _load(config, settings, source_root)
    from beam_pipelines import build_mix
    from beam_pipelines.build_table import print_build

    summary = build_mix.build(
        mix,
        output,
        datasets=dataset or (),
        engine=engine.value,
        overwrite=overwrite,
        beam_arguments=context.args,
        quiet=quiet,
    )
    if summary.template is not None:
        terminal.print_as_is(
            terminal.output(), f"Nothing is built yet: the job is staged, and its template is {summary.template}"
        )
        return
    print_build(terminal.output(), summary, output)


@app.command(cls=_BeamCommand)
def vocab(
    context: typer.Context,
    config: Config,
    output: Output,
    container: Annotated[
        ContainerChoice, typer.Option("--format", help="Parquet, with the source's columns, or ArrayRecord.")
    ] = ContainerChoice.parquet,
    dataset: Datasets = None,
    engine: EngineOption = EngineChoice.auto,
    overwrite: Overwrite = False,
    settings: Settings = None,
    source_root: SourceRoot = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Build the text corpus that a tokenizer is trained on, each dataset to its exact token budget.

    The same build as [bold]build[/], with text for its output: encoding what it writes by the config's tokenizer gives
    exactly the budget.
    """
    from beam_pipelines.build_vocab_corpus import text_settings

    build(
        context,
        config,
        output,
        dataset=dataset,
        engine=engine,
        overwrite=overwrite,
        settings=[*text_settings(container.value), *(settings or ())],
        source_root=source_root,
        quiet=quiet,
        debug=debug,
    )


@app.command()
def plan(
    config: Config,
    dataset: Datasets = None,
    engine: EngineOption = EngineChoice.auto,
    settings: Settings = None,
    source_root: SourceRoot = None,
    output_format: TableFormat = FormatChoice.table,
    ledger: Ledger = None,
    debug: Debug = False,
) -> None:
    """Show what a build would read and write, from footers and a small sample, or from counts in a ledger."""
    terminal.start(debug=debug)
    mix = _load(config, settings, source_root)
    from beam_pipelines import plan_mix
    from beam_pipelines.plan_table import print_plan

    outlooks = plan_mix.plan(mix, datasets=dataset or (), engine=engine.value, ledger=ledger)
    print_plan(terminal.output(), outlooks, output_format.value)


@app.command()
def download(
    config: Config,
    to: Annotated[str, typer.Option(metavar="URI", help="Where the files go: a folder or gs://bucket/folder.")],
    dataset: Datasets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files, with their sizes.")] = False,
    settings: Settings = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Download the hub files that a mix names, whole, at their pinned revisions.

    A build needs none of this: it streams what it needs. Use it where the same files are read many times, then build
    with [bold]--source-root[/]. A download that was stopped is run again and goes on where it was.
    """
    terminal.start(debug=debug)
    mix = _load(config, settings)
    from beam_pipelines import download_sources
    from beam_pipelines.download_table import print_downloads

    found = download_sources.downloads(mix, to, dataset or ())
    if dry_run:
        print_downloads(terminal.output(), found)
        return
    fetched = download_sources.download(found, quiet=quiet)
    terminal.print_as_is(terminal.output(), f"{fetched} of {len(found)} files fetched, the others were there: {to}")


@app.command(cls=_BeamCommand)
def count(
    context: typer.Context,
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="WHAT", help="Mix configs, folders of built datasets, parquet files or patterns of them."
        ),
    ],
    dataset: Datasets = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The tokenizer for parquet files: a tokenizer.json or its folder."),
    ] = None,
    text_column: Annotated[str, typer.Option(metavar="NAME", help="The column of parquet files to count.")] = "text",
    ledger: Ledger = None,
    engine: EngineOption = EngineChoice.auto,
    settings: Settings = None,
    output_format: TableFormat = FormatChoice.table,
    output: Annotated[str | None, typer.Option(metavar="FILE", help="Write the same to a file, too.")] = None,
    debug: Debug = False,
) -> None:
    """Count subtokens: of a config's sources, of parquet files, or of what was built. All of each is read.

    Shows subtokens, documents, bytes, and tokens per document (mean, median, 99th percentile); see docs/counting.md.
    """
    from beam_pipelines import count_subtokens
    from beam_pipelines.count_table import counts_text, print_counts
    from transforms import files

    terminal.start(debug=debug)
    counts = count_subtokens.count(
        what,
        lambda config: _load(config, settings),
        datasets=dataset or (),
        tokenizer=tokenizer,
        text_column=text_column,
        engine=engine.value,
        ledger=ledger,
        beam_arguments=context.args,
    )
    print_counts(terminal.output(), counts, output_format.value)
    if output is not None:
        files.write_bytes(output, counts_text(counts, output_format.value).encode())


@app.command(cls=_BeamCommand)
def verify(
    context: typer.Context,
    output: Annotated[str, typer.Argument(metavar="URI", help="A folder of built datasets, or one dataset.")],
    engine: EngineOption = EngineChoice.auto,
    debug: Debug = False,
) -> None:
    """Read everything back with Grain's reader and hold it against the manifests."""
    from beam_pipelines import verify_output
    from beam_pipelines.verify_table import print_verified

    terminal.start(debug=debug)
    manifests = verify_output.verify(output, engine=engine.value, beam_arguments=context.args)
    print_verified(terminal.output(), manifests)


@app.command()
def status(
    output: Annotated[str, typer.Argument(metavar="URI", help="The --output of a build, running or not.")],
    output_format: TableFormat = FormatChoice.table,
    debug: Debug = False,
) -> None:
    """Tell how far a build is, from what lies in its output: on any runner, and from any machine."""
    terminal.start(debug=debug)
    from beam_pipelines.status_table import print_status
    from transforms.build_status import read_progress

    print_status(terminal.output(), read_progress(output), output_format.value)


@app.command()
def mix(
    outputs: Annotated[
        list[str],
        typer.Argument(
            metavar="[CONFIG] [NAME=]OUTPUT…",
            help="Folders that [bold]broetchen build[/] has written, local or gs://…, of any configs; NAME= gives a "
            "single dataset another name. A mix config chooses its datasets, and gives their order.",
        ),
    ],
    output: Annotated[
        str | None, typer.Option(metavar="FILE", help="The mixture file, JSON. Without it, nothing is written.")
    ] = None,
    shares: Annotated[
        str | None,
        typer.Option(
            metavar="SHARES",
            help="Percent of the tokens: NAME=30,NAME=70, or 30,70 in the order of CONFIG or of --dataset. By default "
            "those that the configs of the datasets wanted.",
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", metavar="NAME", help="Only this dataset; may be given several times."),
    ] = None,
    eval_output: Annotated[
        str | None, typer.Option(metavar="FILE", help="A file for MaxText's grain_eval_files, a line of text.")
    ] = None,
    mount: Annotated[
        list[str] | None,
        typer.Option(metavar="GS=PATH", help="gs://bucket=/path: where the trainer has a bucket as a folder."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="MaxText's num_epoch: how often a dataset is read at most.")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Of the training; needs --batch.")] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Sequences a step: per_device_batch_size × devices × gradient_accumulation_steps. Says at which step "
            "data ends.",
        ),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(min=1, help="max_target_length; by default the records.max_tokens of the datasets."),
    ] = None,
    simulate: Annotated[
        int, typer.Option(metavar="N", min=0, help="Draw N records through Grain, and show the shares that came out.")
    ] = 0,
    output_format: TableFormat = FormatChoice.table,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the mixture file by which MaxText mixes built datasets, with weights that give the wanted token shares.

    MaxText weighs records, so a share has to be divided by the mean tokens of a record. Shows what Grain makes of the
    weights, which dataset ends first, and how often each has been read by then; see docs/mixture.md.

    Example: [bold]broetchen mix ./my-mix --output mixture.json --steps 1000 --batch 256[/], then
    [bold]grain_train_mixture_config_path=mixture.json[/].
    """
    from beam_pipelines import write_mixture as job
    from beam_pipelines.mixture_table import notes, print_mixture

    terminal.start(debug=debug)
    summary = job.write_mixture(
        outputs,
        output,
        datasets=dataset or (),
        shares=shares,
        mounts=mount or (),
        eval_output=eval_output,
        epochs=epochs,
        steps=steps,
        batch=batch,
        length=length,
        simulated=simulate,
        quiet=quiet,
    )
    print_mixture(terminal.output(), summary, output_format.value)
    for note in notes(summary):
        terminal.say(f"broetchen: {note}")


@app.command()
def report(
    output: Annotated[
        str, typer.Argument(metavar="URI", help="A folder of built datasets, or one dataset, local or gs://….")
    ],
    page: Annotated[
        str, typer.Option("--output", metavar="FILE", help="The HTML page; one that is there is replaced.")
    ] = "report.html",
    png: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Write the charts as PNG files, too, into this folder.")
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(min=1, help="max_target_length; by default the longest records.max_tokens of the datasets."),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Sequences that are packed at a time: those that a host loads for a step.")
    ] = 32,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a report on built datasets: one HTML page, which needs no network and no other file.

    Shows wanted and written tokens, the mixture, lengths of documents, padding under MaxText's packing, sources, rows
    left out, throughput and sample documents. Of large datasets a sample is read; see docs/report.md.

    Example: [bold]broetchen report ./my-mix --length 2048 --png charts[/]
    """
    terminal.start(debug=debug)
    from beam_pipelines import write_report as job

    job.write_report(output, page, png_folder=png, length=length, batch=batch, quiet=quiet)
    terminal.print_as_is(terminal.output(), f"The report is {page}")


@app.command("train-tokenizer")
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
    style: Annotated[StyleChoice, typer.Option(help="Normalizer and split; see docs/tokenizer.md.")] = (
        StyleChoice.gpt_4
    ),
    trainer: Annotated[
        TrainerChoice, typer.Option(help="What trains; the tokenizer is the same. gigatoken: style gpt-neox only.")
    ] = TrainerChoice.tokenizers,
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
    import dataclasses

    from beam_pipelines import tokenizer_corpus
    from beam_pipelines import train_tokenizer as job
    from beam_pipelines.tokenizer_table import print_training
    from transforms.quantities import parse_size

    terminal.start(debug=debug)
    if what.endswith((".yaml", ".yml")):
        corpus = tokenizer_corpus.corpus_of_config(_load(what, settings), dataset or ())
    else:
        corpus = tokenizer_corpus.corpus_at(what, dataset or (), text_column)
    if eval_data is not None:
        evaluation = tokenizer_corpus.corpus_at(eval_data, (), text_column)
        corpus = dataclasses.replace(corpus, evaluation=evaluation.parts)
    summary = job.train_tokenizer(
        corpus,
        output,
        style=style.value,
        trainer=trainer.value,
        vocab_size=vocab_size,
        eos_token=eos_token,
        more_special_tokens=special_token or (),
        max_bytes=None if max_bytes is None else parse_size(max_bytes),
        check_all=check_all,
        overwrite=overwrite,
        quiet=quiet,
    )
    print_training(terminal.output(), summary)


@app.command("eval-tokenizer", cls=_BeamCommand)
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
    engine: EngineOption = EngineChoice.auto,
    plot: Annotated[str | None, typer.Option(metavar="FILE", help="Draw a plot: a .png or .svg.")] = None,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write all results as JSON.")] = None,
    output_format: TableFormat = FormatChoice.table,
    debug: Debug = False,
) -> None:
    """Evaluate tokenizers on text, by language or dataset: fertility, compression, Rényi efficiency, speed and more.

    docs/evaluation.md says what each column means.
    """
    from beam_pipelines import evaluate_tokenizer, evaluation_plot, evaluation_tables

    terminal.start(debug=debug)
    if plot is not None:
        evaluation_plot.check_plot_path(plot)
    evaluation = evaluate_tokenizer.evaluate(
        tokenizers or (),
        data or (),
        text_column=text_column,
        with_public=with_public,
        engine=engine.value,
        beam_arguments=context.args,
    )
    evaluation_tables.print_evaluation(terminal.output(), evaluation, output_format.value)
    if json_file is not None:
        evaluation_tables.write_json(evaluation, json_file)
    if plot is not None:
        evaluation_plot.plot_evaluation(evaluation, plot)


@app.command()
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="The training config; see docs/training.md.")],
    action: Annotated[
        TrainAction,
        typer.Argument(
            help="start the run, or go on with it; show its status or its logs; stop it; delete its machines; export "
            "a checkpoint to Hugging Face format."
        ),
    ] = TrainAction.start,
    target: Annotated[TargetChoice, typer.Option(help="This machine, a TPU VM, or a TPU cluster of GKE.")] = (
        TargetChoice.local
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="start: check everything, and show each command and file; do nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="start, delete: do not ask.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="logs: go on until the run ends.")] = False,
    step: Annotated[int | None, typer.Option(min=0, help="export: of this step; of the last by default.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Overrides a key of the config, e.g. --set parameters.steps=100."
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Train a model on what was built, by MaxText.

    Every parameter is checked against MaxText and the data before anything is paid for. A run that was stopped, killed
    or preempted is started again with the same command, and goes on from its last checkpoint.
    """
    terminal.start(debug=debug)
    for option, given, needed in (
        ("--dry-run", dry_run, (TrainAction.start,)),
        ("--yes", yes, (TrainAction.start, TrainAction.delete)),
        ("--follow", follow, (TrainAction.logs,)),
        ("--step", step is not None, (TrainAction.export,)),
    ):
        if given and action not in needed:
            raise UsageError(f"{option} is for {' and '.join(needed)}, not for {action}; leave it out")
    from launch.targets import TargetName, target_of
    from launch.training_config import load_training_config

    run = load_training_config(config, overrides=_overrides(settings, "parameters.steps=100"))
    trainer = target_of(TargetName(target.value), run)
    match action:
        case TrainAction.start:
            trainer.start(dry_run=dry_run, yes=yes)
        case TrainAction.status:
            trainer.status()
        case TrainAction.logs:
            trainer.logs(follow=follow)
        case TrainAction.stop:
            trainer.stop()
        case TrainAction.delete:
            trainer.delete(yes=yes)
        case TrainAction.export:
            trainer.export(step=step)


@app.command(cls=_BeamCommand)
def demo(
    context: typer.Context,
    output: Annotated[str, typer.Option(metavar="URI", help="Where the demo's datasets go.")] = "demo-output",
    engine: EngineOption = EngineChoice.auto,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Build a mix of five datasets from the embedded sample corpora, verify it, and show the table."""
    from beam_pipelines import build_mix, verify_output
    from beam_pipelines.build_table import print_build
    from beam_pipelines.demo import demo_config
    from beam_pipelines.verify_table import print_verified

    terminal.start(debug=debug)
    summary = build_mix.build(
        demo_config(),
        output,
        engine=engine.value,
        overwrite=True,
        beam_arguments=context.args,
        quiet=quiet,
    )
    console = terminal.output()
    print_build(console, summary, output)
    manifests = verify_output.verify(output, beam_arguments=context.args)
    print_verified(console, manifests)


def run(command: Callable[[], Any], *, debug: bool) -> int:
    """Runs a command; an error becomes its message and an exit code, and a traceback only where `debug` asks for it."""
    try:
        command()
    except SystemExit as ending:
        if ending.code == _INTERRUPTED:
            terminal.say("broetchen: stopped; run the same command again to go on")
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, BroetchenError):
            terminal.say(f"broetchen: {error}")
            return error.exit_code
        message = str(error).strip().rpartition("\n")[2] or "no message"
        terminal.say(f"broetchen: unexpected {type(error).__name__}: {message}; --debug shows where")
        return 1
    return 0


def main() -> None:
    """The entry point of `broetchen`."""
    code = run(app, debug="--debug" in sys.argv)
    if code:
        # Threads that Beam leaves behind after an error may be deep in native code, which aborts the process when the
        # interpreter is taken down under it.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit()


def module_main(command: str, argument: str) -> None:
    """The entry point of `python -m beam_pipelines.<module>`: `command`, with its argument as the option `argument`."""
    options = argparse.ArgumentParser(prog=f"broetchen {command}", add_help=False, allow_abbrev=False)
    options.add_argument(argument, dest="value")
    given, others = options.parse_known_args(sys.argv[1:])
    sys.argv = ["broetchen", command, *others, *([given.value] if given.value is not None else [])]
    main()


if __name__ == "__main__":
    main()
