"""Commands that build datasets, and those that prepare a build."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from beam_pipelines.commands.options import (
    Config,
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
from beam_pipelines.config.text_corpus import Container, text_settings
from beam_pipelines.console import terminal
from transforms.errors import BroetchenError, UsageError

Output = Annotated[str, typer.Option(metavar="URI", help="Where the datasets go: a folder or gs://bucket/folder.")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Check all that a build checks before it starts, show the plan, build nothing."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace datasets that another config left there.")]

Grow = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="An earlier output with smaller or larger datasets of this config: their shards are taken over. It stays.",
    ),
]


def init(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="The file to write, such as my-mix.yaml.")],
    debug: Debug = False,
) -> None:
    """Write a first mix config, commented, that builds at once from small sample corpora."""
    terminal.start(debug=debug)
    from beam_pipelines.config.starter import write_starter

    write_starter(config)
    name = shlex.quote(config)
    terminal.print_as_is(terminal.output(), f"{config} is written; see what it would build: broetchen plan {name}")


def build(
    context: typer.Context,
    config: Config,
    output: Output,
    dataset: Datasets = None,
    engine: EngineOption = "auto",
    overwrite: Overwrite = False,
    grow: Grow = None,
    dry_run: DryRun = False,
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
    mix = load_mix(config, settings, source_root)
    from beam_pipelines.jobs import build as job
    from beam_pipelines.tables.datasets import print_build

    if dry_run:
        from beam_pipelines.jobs.dry_run import dry_run as check_build
        from beam_pipelines.tables.sources import print_dry_run

        found = check_build(
            mix,
            output,
            datasets=dataset or (),
            engine=engine,
            overwrite=overwrite,
            grow=grow,
            beam_arguments=context.args,
            quiet=quiet,
        )
        print_dry_run(terminal.output(), found, output)
        return
    summary = job.build(
        mix,
        output,
        datasets=dataset or (),
        engine=engine,
        overwrite=overwrite,
        grow=grow,
        beam_arguments=context.args,
        quiet=quiet,
    )
    if summary.template is not None:
        terminal.print_as_is(
            terminal.output(), f"Nothing is built yet: the job is staged, and its template is {summary.template}"
        )
        return
    print_build(terminal.output(), summary, output)


def vocab(
    context: typer.Context,
    config: Config,
    output: Output,
    container: Annotated[
        Container, typer.Option("--format", help="Parquet, with the source's columns, or ArrayRecord.")
    ] = "parquet",
    dataset: Datasets = None,
    engine: EngineOption = "auto",
    overwrite: Overwrite = False,
    grow: Grow = None,
    dry_run: DryRun = False,
    settings: Settings = None,
    source_root: SourceRoot = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Build the text corpus that a tokenizer is trained on, each dataset to its exact token budget.

    The same build as [bold]build[/], with text for its output: encoding what it writes by the config's tokenizer gives
    exactly the budget.
    """
    build(
        context,
        config,
        output,
        dataset=dataset,
        engine=engine,
        overwrite=overwrite,
        grow=grow,
        dry_run=dry_run,
        settings=[*text_settings(container), *(settings or ())],
        source_root=source_root,
        quiet=quiet,
        debug=debug,
    )


def plan(
    config: Config,
    dataset: Datasets = None,
    engine: EngineOption = "auto",
    settings: Settings = None,
    source_root: SourceRoot = None,
    output_format: TableFormat = "table",
    ledger: Ledger = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what a build would read and write, from footers and a small sample, or from counts in a ledger."""
    terminal.start(debug=debug)
    mix = load_mix(config, settings, source_root)
    from beam_pipelines.jobs import plan as job
    from beam_pipelines.tables.sources import print_plan

    outlooks = job.plan(mix, datasets=dataset or (), engine=engine, ledger=ledger, quiet=quiet)
    print_plan(terminal.output(), outlooks, output_format)


def download(
    config: Config,
    to: Annotated[str, typer.Option(metavar="URI", help="Where the files go: a folder or gs://bucket/folder.")],
    dataset: Datasets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files, with their sizes.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Fetch nothing: hash what is there, compare with the hub, name what is wrong."),
    ] = False,
    settings: Settings = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Download the hub files that a mix names, whole, at their pinned revisions.

    A build needs none of this: it streams what it needs. Use it where the same files are read many times, then build
    with [bold]--source-root[/]. A download that was stopped is run again and goes on where it was; one that finds
    another at the same file waits for it.
    """
    terminal.start(debug=debug)
    if dry_run and check:
        raise UsageError("--dry-run lists the files and --check reads them; choose one of the two")
    mix = load_mix(config, settings)
    from beam_pipelines.jobs import download as job
    from beam_pipelines.tables.datasets import print_downloads, print_wrong_copies

    found = job.downloads(mix, to, dataset or ())
    if dry_run:
        print_downloads(terminal.output(), found)
        return
    if check:
        wrong = job.check(found, quiet=quiet)
        print_wrong_copies(terminal.output(), wrong)
        if wrong:
            raise BroetchenError(
                f"{to}: {len(wrong)} of {len(found)} files are not as the hub has them; delete those that are wrong, "
                "and run it again without --check"
            )
        terminal.print_as_is(terminal.output(), f"all of {len(found)} files are as the hub has them: {to}")
        return
    fetched = job.download(found, quiet=quiet)
    terminal.print_as_is(terminal.output(), f"{fetched} of {len(found)} files fetched, the others were there: {to}")


def demo(
    context: typer.Context,
    output: Annotated[str, typer.Option(metavar="URI", help="Where the demo's datasets go.")] = "demo-output",
    engine: EngineOption = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Build a mix of five datasets from the embedded sample corpora, verify it, and show the table."""
    terminal.start(debug=debug)
    from beam_pipelines.jobs.build import build_demo
    from beam_pipelines.jobs.verify import verify
    from beam_pipelines.tables.datasets import print_build, print_verified

    summary = build_demo(output, engine=engine, beam_arguments=context.args, quiet=quiet)
    console = terminal.output()
    print_build(console, summary, output)
    print_verified(console, verify(output, beam_arguments=context.args, quiet=quiet))
