"""Commands that train a model by MaxText: the mixture that it reads, and the run."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from beam_pipelines.commands.options import Debug, Quiet, TableFormat, overrides_of
from beam_pipelines.console import terminal
from transforms.errors import UsageError


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
    blend: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Of datasets in Megatron's format: a folder for the exact order of their sequences, instead of a "
            "mixture file. Needs --steps, --batch and --length.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Of the order, data_shuffle_seed; with --blend.")
    ] = None,
    output_format: TableFormat = "table",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the mixture file by which MaxText mixes built datasets, with weights that give the wanted token shares.

    MaxText weighs records, so a share has to be divided by the mean tokens of a record. Shows what Grain makes of the
    weights, which dataset ends first, and how often each has been read by then; see docs/mixture.md.

    Example: [bold]broetchen mix ./my-mix --output mixture.json --steps 1000 --batch 256[/], then
    [bold]grain_train_mixture_config_path=mixture.json[/].
    """
    terminal.start(debug=debug)
    if blend is not None:
        for option, given in (("--output", output), ("--eval-output", eval_output), ("--simulate", simulate or None)):
            if given is not None:
                raise UsageError(
                    f"{option} is for mixtures that MaxText draws, and does not go with --blend; leave it out"
                )
        from beam_pipelines.jobs.order import write_order_files
        from beam_pipelines.tables.order import print_order

        order = write_order_files(
            outputs,
            blend,
            steps=steps,
            batch=batch,
            length=length,
            datasets=dataset or (),
            shares=shares,
            mounts=mount or (),
            epochs=epochs,
            seed=seed or 0,
        )
        print_order(terminal.output(), order, output_format)
        terminal.say(f"broetchen: {order.check}; train with: {order.command}")
        return
    if seed is not None:
        raise UsageError("--seed is of an exact order; give --blend FOLDER, or leave it out")
    from beam_pipelines.jobs.mixture import write_mixture
    from beam_pipelines.tables.mixture import notes, print_mixture

    summary = write_mixture(
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
    print_mixture(terminal.output(), summary, output_format)
    for note in notes(summary):
        terminal.say(f"broetchen: {note}")


def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="The training config; see docs/training.md.")],
    action: Annotated[
        Literal["start", "status", "logs", "stop", "delete", "export"],
        typer.Argument(
            help="start the run, or go on with it; show its status or its logs; stop it; delete its machines; export "
            "a checkpoint to Hugging Face format."
        ),
    ] = "start",
    target: Annotated[
        Literal["local", "tpu-vm", "xpk"], typer.Option(help="This machine, a TPU VM, or a TPU cluster of GKE.")
    ] = "local",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="start: check everything; show what it takes, each command and file; do nothing.",
        ),
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
        ("--dry-run", dry_run, ("start",)),
        ("--yes", yes, ("start", "delete")),
        ("--follow", follow, ("logs",)),
        ("--step", step is not None, ("export",)),
    ):
        if given and action not in needed:
            raise UsageError(f"{option} is for {' and '.join(needed)}, not for {action}; leave it out")
    from launch.config.training import load_training_config
    from launch.export.run import export_run
    from launch.targets import TargetName, target_of

    run = load_training_config(config, overrides=overrides_of(settings, "parameters.steps=100"))
    trainer = target_of(TargetName(target), run)
    match action:
        case "start":
            if dry_run:
                from beam_pipelines.tables.training import budget_comment

                planned = trainer.dry_run()
                print(f"{budget_comment(run.name, planned.budget)}\n{planned.script}", end="")
            else:
                trainer.start(yes=yes)
        case "status":
            trainer.status()
        case "logs":
            trainer.logs(follow=follow)
        case "stop":
            trainer.stop()
        case "delete":
            trainer.delete(yes=yes)
        case "export":
            print(f"{run.name}: exported to {export_run(run, step=step)}")
