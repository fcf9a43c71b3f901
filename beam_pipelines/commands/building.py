"""Commands that build datasets, and those that prepare a build."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from beam_pipelines.commands.options import (
    Config,
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
from beam_pipelines.config.text_corpus import Container, text_settings
from beam_pipelines.console import terminal
from beam_pipelines.console.layout import print_json
from transforms.errors import BroetchenError, UsageError
from transforms.tokenizer.spec import Engine

Output = Annotated[
    str, typer.Option("--output", "-o", metavar="URI", help="Where the datasets go: a folder or gs://bucket/folder.")
]
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
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="The file to write, such as my-mix.yaml.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="CONFIG", help="The same, as an option.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a first mix config, commented, that builds at once from small sample corpora."""
    terminal.start(debug=debug, quiet=quiet, hints=not as_json)
    if (config is None) == (output is None):
        raise UsageError("init writes one file: name it once, as in broetchen init my-mix.yaml")
    from beam_pipelines.config.starter import write_starter

    path = config or output or ""
    write_starter(path)
    if as_json:
        print_json(terminal.output(), {"config": path})
    else:
        terminal.print_as_is(terminal.output(), f"{path} is written")
    next_command("plan", path)


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
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Build the datasets of a mix, each to its exact token budget.

    A build that was stopped or killed is simply run again: finished shards are not redone.

    Example: [bold]broetchen build mix.yaml -o ./my-mix --direct_num_workers 4[/], or with [bold]--runner DataflowRunner
    --project … --region …[/].
    """
    _build(
        context,
        "build",
        config,
        output,
        dataset=dataset,
        engine=engine,
        overwrite=overwrite,
        grow=grow,
        dry_run=dry_run,
        settings=settings,
        source_root=source_root,
        as_json=as_json,
        quiet=quiet,
        debug=debug,
    )


def _build(
    context: typer.Context,
    command: str,
    config: str,
    output: str,
    *,
    more_settings: Sequence[str] = (),
    own_options: Sequence[str] = (),
    dataset: list[str] | None,
    engine: Engine,
    overwrite: bool,
    grow: str | None,
    dry_run: bool,
    settings: list[str] | None,
    source_root: str | None,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Runs `build` or `vocab`; `vocab` is a build with `more_settings`, by `own_options` that `build` lacks."""
    terminal.start(debug=debug, quiet=quiet, hints=not as_json, takes_time=True)
    mix = load_mix(config, [*more_settings, *(settings or ())], source_root)
    console = terminal.output()
    if dry_run:
        from beam_pipelines.jobs.dry_run import dry_run as check_build
        from beam_pipelines.tables.sources import dry_run_as_json, print_dry_run

        dry_run_result = check_build(
            mix,
            output,
            datasets=dataset or (),
            engine=engine,
            overwrite=overwrite,
            grow=grow,
            beam_arguments=context.args,
            quiet=quiet,
        )
        if as_json:
            print_json(console, dry_run_as_json(dry_run_result, output))
        else:
            print_dry_run(console, dry_run_result, output)
        chosen = given_options(dataset=dataset, settings=settings, source_root=source_root, engine=engine)
        more = [*own_options, *(["--overwrite"] if overwrite else []), *([] if grow is None else [f"--grow={grow}"])]
        next_command(command, config, "--output", output, *chosen, *more, *context.args)
        return
    from beam_pipelines.jobs import build as job
    from beam_pipelines.tables.datasets import build_as_json, print_build

    terminal.will_go_on()
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
    if as_json:
        print_json(console, build_as_json(summary, output))
    elif summary.template is not None:
        terminal.print_as_is(
            console, f"Nothing is built yet: the job is staged, and its template is {summary.template}"
        )
        next_command("status", output)
    else:
        print_build(console, summary, output)
        if command == "vocab":
            next_command("train-tokenizer", output, "--output", "TOKENIZER")
        else:
            next_command("verify", output)


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
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Build the text corpus that a tokenizer is trained on, each dataset to its exact token budget.

    The same build as [bold]build[/], with text for its output: encoding what it writes by the config's tokenizer gives
    exactly the budget.
    """
    _build(
        context,
        "vocab",
        config,
        output,
        more_settings=text_settings(container),
        own_options=[] if container == "parquet" else [f"--format={container}"],
        dataset=dataset,
        engine=engine,
        overwrite=overwrite,
        grow=grow,
        dry_run=dry_run,
        settings=settings,
        source_root=source_root,
        as_json=as_json,
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
    as_json: Json = False,
    output: OutputFile = None,
    ledger: Ledger = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what a build would read and write, from footers and a small sample, or from counts in a ledger."""
    shape = chosen_format(output_format, as_json)
    terminal.start(debug=debug, quiet=quiet, hints=shape == "table", takes_time=True)
    mix = load_mix(config, settings, source_root)
    from beam_pipelines.jobs import plan as job
    from beam_pipelines.tables.sources import print_plan
    from transforms.files.storage import is_local

    outlooks = job.plan(mix, datasets=dataset or (), engine=engine, ledger=ledger, quiet=quiet)
    # A plan does not say where its output would be. Data from this machine mostly stays there.
    remote = any(not is_local(source) for name in mix.datasets for source in mix.sources(name))
    give(lambda console: print_plan(console, outlooks, shape, in_bucket=remote), output)
    chosen = given_options(dataset=dataset, settings=settings, source_root=source_root, engine=engine)
    next_command("build", config, "--output", mix.name, *chosen)


def download(
    config: Config,
    to: Annotated[
        str,
        typer.Option(
            "--output", "-o", "--to", metavar="URI", help="Where the files go: a folder or gs://bucket/folder."
        ),
    ],
    dataset: Datasets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files, with their sizes.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Fetch nothing: hash the copies, compare with the hub, name the faults."),
    ] = False,
    settings: Settings = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Download the hub files that a mix names, whole, at their pinned revisions.

    A build needs none of this: it streams what it needs. Use it where the same files are read many times, then build
    with [bold]--source-root[/]. A download that was stopped is run again and goes on where it was; one that finds
    another at the same file waits for it.
    """
    terminal.start(debug=debug, quiet=quiet, hints=not as_json, takes_time=True)
    if dry_run and check:
        raise UsageError("--dry-run lists the files and --check reads them; choose one of the two")
    mix = load_mix(config, settings)
    from beam_pipelines.jobs import download as job
    from beam_pipelines.tables.datasets import downloads_as_json, print_downloads, print_wrong_copies

    files = job.downloads(mix, to, dataset or ())
    console, chosen = terminal.output(), given_options(dataset=dataset, settings=settings)
    if check:
        wrong = job.check(files, quiet=quiet)
        if as_json:
            print_json(console, downloads_as_json(files, wrong))
        else:
            print_wrong_copies(console, wrong)
        if wrong:
            raise BroetchenError(
                f"{to}: {len(wrong)} of {len(files)} files are not as the hub has them; delete those that are wrong, "
                "and run it again without --check"
            )
    if not (dry_run or check):
        terminal.will_go_on()
    fetched = 0 if dry_run or check else job.download(files, quiet=quiet)
    if dry_run:
        next_step = ("download", config, "--output", to, *chosen)
    else:
        next_step = ("build", config, "--output", mix.name, *chosen, f"--source-root={to}")
    if as_json and not check:
        print_json(console, downloads_as_json(files))
    elif dry_run:
        print_downloads(console, files)
    elif check:
        terminal.print_as_is(console, f"all of {len(files)} files are as the hub has them: {to}")
    else:
        terminal.print_as_is(console, f"{fetched} of {len(files)} files fetched, the others were there: {to}")
    next_command(*next_step)


def demo(
    context: typer.Context,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="URI", help="Where the demo's datasets go.")
    ] = "demo-output",
    engine: EngineOption = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Build a mix of five datasets from the embedded sample corpora, verify it, and show the table."""
    terminal.start(debug=debug, quiet=quiet, hints=not as_json, takes_time=True)
    from beam_pipelines.jobs.build import build_demo
    from beam_pipelines.jobs.verify import verify
    from beam_pipelines.tables.datasets import build_as_json, print_build, print_verified, verification_as_json

    terminal.will_go_on()
    summary = build_demo(output, engine=engine, beam_arguments=context.args, quiet=quiet)
    console = terminal.output()
    if not as_json:
        print_build(console, summary, output)
    verified = verify(output, beam_arguments=context.args, quiet=quiet)
    if as_json:
        parts = {"build": build_as_json(summary, output), "verify": verification_as_json(verified, "sound")}
        print_json(console, parts)
    else:
        print_verified(console, verified)
    next_command("report", output)
