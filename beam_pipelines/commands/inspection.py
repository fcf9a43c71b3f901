"""Commands that tell what sources and built datasets hold."""

from __future__ import annotations

from typing import Annotated

import typer

from beam_pipelines.commands.options import (
    Datasets,
    Debug,
    EngineOption,
    Ledger,
    Quiet,
    Settings,
    SourceRoot,
    TableFormat,
    load_mix,
)
from beam_pipelines.console import terminal
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
    output: Annotated[str | None, typer.Option(metavar="FILE", help="Write the same to a file, too.")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Count subtokens: of a config's sources, of parquet files, or of what was built. All of each is read.

    Shows subtokens, documents, bytes, and tokens per document (mean, median, 99th percentile); see docs/counting.md.
    """
    terminal.start(debug=debug)
    from beam_pipelines.jobs import count as job
    from beam_pipelines.tables.sources import counts_text, print_counts
    from transforms.files import storage

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
    print_counts(terminal.output(), counts, output_format)
    if output is not None:
        storage.write_bytes(output, counts_text(counts, output_format).encode())


def verify(
    context: typer.Context,
    output: Annotated[str, typer.Argument(metavar="URI", help="A folder of built datasets, or one dataset.")],
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
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Read everything back with Grain's reader and hold it against the manifests.

    A run that was stopped is simply run again: what it has found sound is read again only where it has changed.
    Warns of texts that stand in train and eval both, of content that is there twice, and of leftovers, and says what it
    cannot find; see docs/verify.md.
    """
    terminal.start(debug=debug)
    from beam_pipelines.jobs import verify as job
    from beam_pipelines.tables.datasets import print_findings, print_verified

    for name, value in (("--seed", seed), ("--config", config), ("--source-root", source_root)):
        if value is not None and against_source is None:
            raise UsageError(f"{name} {value}: goes with --against-source N; add it, or leave this out")
    against = job.AgainstSource.chosen(against_source, seed, config, source_root) if against_source else None
    if against:
        terminal.say(f"{against.row_groups:,} row groups are chosen by --seed {against.seed}")
    found = job.verify(
        output,
        engine=engine,
        quick=quick,
        against=against,
        digest=digest,
        beam_arguments=context.args,
        remember=True,
        fresh=fresh,
        quiet=quiet,
    )
    console = terminal.output()
    if found.template is not None:
        terminal.print_as_is(console, f"The template of the job is {found.template}; nothing was read yet")
        return
    print_verified(console, found, verdict="in place" if quick else "sound")
    print_findings(console, found)


def status(
    output: Annotated[str, typer.Argument(metavar="URI", help="The --output of a build, running or not.")],
    output_format: TableFormat = "table",
    debug: Debug = False,
) -> None:
    """Tell how far a build is, from what lies in its output: on any runner, and from any machine."""
    terminal.start(debug=debug)
    from beam_pipelines.tables.datasets import print_status
    from transforms.building.status import read_progress

    print_status(terminal.output(), read_progress(output), output_format)


def show(
    output: Annotated[
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
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    debug: Debug = False,
) -> None:
    """Show records of a built dataset: their text, their ids, and where in the source their documents stand.

    The last is known where the dataset was built with [bold]records: {trace: true}[/]; see docs/trace.md.

    Example: [bold]broetchen show ./my-mix/german --record 123 --ids[/], or
    [bold]broetchen show ./my-mix --step 340 --run run.yaml[/]
    """
    terminal.start(debug=debug)
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

        print_parts(terminal.output(), show_step(output, run, step), as_json=as_json)
        return
    from beam_pipelines.jobs import show as job
    from beam_pipelines.tables.records import print_records

    if value is not None and record is not None:
        raise UsageError("--record counts records and --id looks for a document: give one of them")
    if value is None and column is not None:
        raise UsageError(f"--column {column}: goes with --id VALUE; add it, or leave this out")
    if value is not None:
        found = job.show_documents(output, value, column=column, split=split, number=number, with_ids=ids)
    else:
        found = job.show(output, split=split or "train", record=record or 0, number=number or 1, with_ids=ids)
    print_records(terminal.output(), found, as_json=as_json)


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
    from beam_pipelines.report.write import write_report

    write_report(output, page, png_folder=png, length=length, batch=batch, quiet=quiet)
    terminal.print_as_is(terminal.output(), f"The report is {page}")
