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
    TableFormat,
    load_mix,
)
from beam_pipelines.console import terminal


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
    )
    print_counts(terminal.output(), counts, output_format)
    if output is not None:
        storage.write_bytes(output, counts_text(counts, output_format).encode())


def verify(
    context: typer.Context,
    output: Annotated[str, typer.Argument(metavar="URI", help="A folder of built datasets, or one dataset.")],
    engine: EngineOption = "auto",
    debug: Debug = False,
) -> None:
    """Read everything back with Grain's reader and hold it against the manifests."""
    terminal.start(debug=debug)
    from beam_pipelines.jobs import verify as job
    from beam_pipelines.tables.datasets import print_verified

    manifests = job.verify(output, engine=engine, beam_arguments=context.args)
    print_verified(terminal.output(), manifests)


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
