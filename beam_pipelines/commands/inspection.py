"""Commands that tell what sources and built datasets hold."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from beam_pipelines.commands.options import (
    Datasets,
    Debug,
    EngineOption,
    Json,
    Ledger,
    OutputFile,
    Quiet,
    Settings,
    SourceRoot,
    TableFormat,
    load_mix,
)
from beam_pipelines.commands.results import chosen_format, give, given_options, next_command
from beam_pipelines.console import terminal
from beam_pipelines.console.layout import print_json
from transforms.errors import UsageError


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
    engine: EngineOption = "auto",
    settings: Settings = None,
    output_format: TableFormat = "table",
    as_json: Json = False,
    output: OutputFile = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Count subtokens: of a config's sources, of parquet files, or of built datasets. All of each is read.

    Shows subtokens, documents, bytes, and tokens per document (mean, median, 99th percentile); see docs/counting.md.
    """
    shape = chosen_format(output_format, as_json)
    terminal.start(debug=debug, quiet=quiet, hints=shape == "table", takes_time=True)
    from beam_pipelines.jobs import count as job
    from beam_pipelines.tables.sources import print_counts
    from transforms.config.file import is_config

    if ledger is not None:
        terminal.will_go_on()
    counts = job.count(
        what,
        lambda config: load_mix(config, settings),
        datasets=dataset or (),
        tokenizer=tokenizer,
        text_column=text_column,
        engine=engine,
        ledger=ledger,
        beam_arguments=context.args,
        quiet=quiet,
    )
    give(lambda console: print_counts(console, counts, shape), output)
    configs = [one for one in what if is_config(one)]
    if configs:
        more = [] if ledger is None else ["--ledger", ledger]
        next_command("plan", configs[0], *given_options(dataset=dataset, settings=settings, engine=engine), *more)
    elif tokenizer is None:
        next_command("verify", what[0])
    else:
        next_command("init", "my-mix.yaml")


def verify(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="URI", help="A folder of built datasets, or one dataset.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at names, sizes and manifests alone, and read no shard.")
    ] = False,
    against_source: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Read N row groups of the sources again, encode them by tokenizers, and compare."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Which row groups those are; by default others each time.")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="CONFIG",
            help="The mix config that it was built by, at whose folder the sources' relative paths start; by default "
            "they start at the working directory.",
        ),
    ] = None,
    source_root: SourceRoot = None,
    digest: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="The digest of the manifests, as an earlier run printed it at its end."),
    ] = None,
    engine: EngineOption = "auto",
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Read all shards, also those that a run that was stopped has found sound."),
    ] = False,
    as_json: Json = False,
    output: OutputFile = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Read everything back with Grain's reader and hold it against the manifests.

    A run that was stopped is simply run again: what it has found sound is read again only where it has changed.
    Warns of texts that stand in train and eval both, of content that is there twice, and of leftovers, and says what it
    cannot find; see docs/verify.md.
    """
    terminal.start(debug=debug, quiet=quiet, hints=not as_json, takes_time=True)
    from beam_pipelines.jobs import verify as job
    from beam_pipelines.tables.datasets import print_findings, print_verified, verification_as_json

    for name, value in (("--seed", seed), ("--config", config), ("--source-root", source_root)):
        if value is not None and against_source is None:
            raise UsageError(f"{name} {value}: goes with --against-source N; add it, or leave this out")
    against = job.AgainstSource.chosen(against_source, seed, config, source_root) if against_source else None
    if against:
        terminal.say(f"{against.row_groups:,} row groups are chosen by --seed {against.seed}")
    verification = job.verify(
        folder,
        engine=engine,
        quick=quick,
        against=against,
        digest=digest,
        beam_arguments=context.args,
        remember=True,
        fresh=fresh,
        quiet=quiet,
    )
    verdict = "in place" if quick else "sound"

    def show_found(console: Console) -> None:
        if as_json:
            print_json(console, verification_as_json(verification, verdict))
        elif verification.template is not None:
            terminal.print_as_is(console, f"The template of the job is {verification.template}; nothing was read yet")
        else:
            print_verified(console, verification, verdict=verdict)
            print_findings(console, verification)

    give(show_found, output)
    if quick:
        next_command("verify", folder)
    elif verification.template is None:
        next_command("report", folder)


def status(
    folder: Annotated[str, typer.Argument(metavar="URI", help="The --output of a build, running or not.")],
    output_format: TableFormat = "table",
    as_json: Json = False,
    output: OutputFile = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Tell how far a build is, from what lies in its output: on any runner, and from any machine."""
    shape = chosen_format(output_format, as_json)
    terminal.start(debug=debug, quiet=quiet, hints=shape == "table")
    from beam_pipelines.tables.status import print_status
    from transforms.building.status import read_progress

    found = read_progress(folder)
    give(lambda console: print_status(console, found, shape), output)
    if all(one.state == "finished" for one in found):
        next_command("verify", folder)
    else:
        next_command("build", "CONFIG", "--output", folder)


def show(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="URI", help="One built dataset, local or gs://…; with [bold]--step[/] also a folder of them."
        ),
    ],
    record: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="The number of a record in its split, from 0.")
    ] = None,
    value: Annotated[
        str | None,
        typer.Option("--id", metavar="VALUE", help="All records of documents with this value in their trace."),
    ] = None,
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="The column to look in; by default any that the trace has.")
    ] = None,
    number: Annotated[
        int | None, typer.Option("-n", metavar="NUMBER", min=1, help="How many records, one after the other.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="By default train, and all splits with [bold]--id[/].")
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="The documents of a step of a training in an exact order, from 0."),
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="CONFIG", help="The training config, or the folder of an order.")
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Show the ids, BOS and EOS included.")] = False,
    as_json: Json = False,
    output: OutputFile = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show records of a built dataset: their text, their ids, and where in the source their documents stand.

    The last is known where the dataset was built with [bold]records: {trace: true}[/]; see docs/trace.md.

    Example: [bold]broetchen show ./my-mix/german --record 123 --ids[/], or
    [bold]broetchen show ./my-mix --step 340 --run run.yaml[/]
    """
    terminal.start(debug=debug, quiet=quiet, hints=not as_json)
    if (step is None) != (run is None):
        raise UsageError("--step says which one of the training that --run names: give both, or neither")
    if step is not None and run is not None:
        for option, given in (("--record", record), ("--id", value), ("--column", column), ("-n", number)):
            if given is not None:
                raise UsageError(f"{option} says which records, and so does --step: give one of them")
        if ids or split is not None:
            raise UsageError(f"{'--ids' if ids else '--split'} does not go with --step; leave it out")
        from beam_pipelines.jobs.step import show_step
        from beam_pipelines.tables.records import print_parts

        parts = list(show_step(folder, run, step))
        give(lambda console: print_parts(console, parts, as_json=as_json), output)
        next_command("show", folder, "--step", str(step + 1), "--run", run)
        return
    from beam_pipelines.jobs import show as job
    from beam_pipelines.tables.records import print_records

    if value is not None and record is not None:
        raise UsageError("--record counts records and --id looks for a document: give one of them")
    if value is None and column is not None:
        raise UsageError(f"--column {column}: goes with --id VALUE; add it, or leave this out")
    if value is not None:
        records = list(job.show_documents(folder, value, column=column, split=split, number=number, with_ids=ids))
    else:
        records = list(job.show(folder, split=split or "train", record=record or 0, number=number or 1, with_ids=ids))
    give(lambda console: print_records(console, records, as_json=as_json), output)
    if records and (after := job.next_record(folder, records[-1])) is not None:
        more = [] if records[-1].split == "train" else [f"--split={records[-1].split}"]
        next_command("show", folder, *more, "--record", str(after))


def report(
    folder: Annotated[
        str, typer.Argument(metavar="URI", help="A folder of built datasets, or one dataset, local or gs://….")
    ],
    page: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The HTML page; one that is there is replaced.")
    ] = "report.html",
    png: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Write the charts as PNG files as well, into this folder.")
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(min=1, help="max_target_length; by default the longest records.max_tokens of the datasets."),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Sequences that are packed at a time: those that a host loads for a step.")
    ] = 32,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a report on built datasets: one HTML page, which needs no network and no other file.

    Shows wanted and written tokens, the mixture, lengths of documents, padding under MaxText's packing, sources, rows
    left out, throughput and sample documents. Of large datasets a sample is read; see docs/report.md.

    Example: [bold]broetchen report ./my-mix --length 2048 --png charts[/]
    """
    terminal.start(debug=debug, quiet=quiet, hints=not as_json, takes_time=True)
    from beam_pipelines.report.write import write_report

    write_report(folder, page, png_folder=png, length=length, batch=batch, quiet=quiet)
    if as_json:
        print_json(terminal.output(), {"report": page, "charts": png})
    else:
        terminal.print_as_is(terminal.output(), f"The report is {page}")
    next_command("mix", folder, "--output", "mixture.json")
