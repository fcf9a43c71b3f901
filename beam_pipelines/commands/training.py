"""Commands that train a model by MaxText: the mixture that it reads, and the run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from beam_pipelines.commands.options import Debug, Json, Quiet, TableFormat, overrides_of
from beam_pipelines.commands.results import chosen_format, from_here, next_command
from beam_pipelines.console import terminal
from beam_pipelines.console.layout import print_json
from transforms.errors import UsageError

if TYPE_CHECKING:
    from launch.config.training import TrainingConfig
    from launch.targets import Target

Action = Literal["start", "status", "logs", "stop", "delete", "export"]


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
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="The mixture file, JSON. Without it, nothing is written."),
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
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the mixture file by which MaxText mixes built datasets, with weights that give the wanted token shares.

    MaxText weighs records, so a share has to be divided by the mean tokens of a record. Shows what Grain makes of the
    weights, which dataset ends first, and how often each has been read by then; see docs/mixture.md.

    Example: [bold]broetchen mix ./my-mix --output mixture.json --steps 1000 --batch 256[/], then
    [bold]grain_train_mixture_config_path=mixture.json[/].
    """
    shape = chosen_format(output_format, as_json)
    terminal.start(debug=debug, quiet=quiet, hints=shape == "table")
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
        print_order(terminal.output(), order, shape)
        if shape == "table":
            terminal.print_as_is(
                terminal.output(),
                f"{order.folder} is written: the order of {order.sequences:,} sequences. {order.check}.",
            )
        terminal.hint(f"Next: {order.command}")
        return
    if seed is not None:
        raise UsageError("--seed is of an exact order; give --blend FOLDER, or leave it out")
    from beam_pipelines.jobs.mixture import write_mixture
    from beam_pipelines.tables.mixture import notes, print_mixture, print_written

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
    print_mixture(terminal.output(), summary, shape)
    if shape == "table":
        print_written(terminal.output(), summary, output, eval_output)
    for note in notes(summary):
        terminal.say(f"broetchen: {note}")
    if output is None:
        next_command("mix", *_as_given(outputs, dataset, shares), "--output", "mixture.json")
    else:
        next_command("train", "CONFIG")


def _as_given(outputs: Sequence[str], dataset: Sequence[str] | None, shares: str | None) -> list[str]:
    named = [f"--dataset={name}" for name in dataset or ()]
    return [*outputs, *named, *([] if shares is None else [f"--shares={shares}"])]


def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="The training config; see docs/training.md.")],
    action: Annotated[
        str,
        typer.Argument(
            metavar=f"[{'|'.join(get_args(Action))}]",
            help="start the run, or go on with it; show its status or its logs; stop it; delete its machines; export "
            "a checkpoint to Hugging Face format. It may also stand before CONFIG.",
            autocompletion=lambda: list(get_args(Action)),
        ),
    ] = "start",
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="URI", help="Where the run's folder is, instead of the config's output."
        ),
    ] = None,
    target: Annotated[
        Literal["local", "tpu-vm", "xpk"] | None,
        typer.Option(help="This machine, a TPU VM, or a TPU cluster of GKE; by default the config's target."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="start: check everything; show the cost, each command and file; do nothing.",
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
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a model on built datasets, by MaxText.

    Every parameter is checked against MaxText and the data before anything is paid for. A run that was stopped, killed
    or preempted is started again with the same command, and goes on from its last checkpoint.

    Example: [bold]broetchen train run.yaml --dry-run[/], [bold]broetchen train run.yaml[/], and
    [bold]broetchen train status run.yaml[/].
    """
    terminal.start(debug=debug, quiet=quiet, hints=not as_json)
    path, verb = _sorted_out(config, action)
    for option, given, needed in (
        ("--dry-run", dry_run, ("start",)),
        ("--yes", yes, ("start", "delete")),
        ("--follow", follow, ("logs",)),
        ("--step", step is not None, ("export",)),
        ("--json", as_json, ("start", "status", "stop", "delete", "export")),
    ):
        if given and verb not in needed:
            those = " and ".join(filter(None, (", ".join(needed[:-1]), needed[-1])))
            raise UsageError(f"{option} is for {those}, not for {verb}; leave it out")
    from launch.config.training import load_training_config
    from launch.targets import TargetName, target_of

    overrides = overrides_of(settings, "parameters.steps=100")
    if output is not None:
        overrides["output"] = from_here(output)
    run = load_training_config(path, overrides=overrides)
    name = TargetName(target or run.target)
    trainer = target_of(name, run)
    again = ["--output", output] if output is not None else []
    again += [f"--target={target}"] if target is not None else []
    again += [f"--set={setting}" for setting in settings or ()]
    if dry_run:
        _show_dry_run(run, trainer, as_json=as_json)
    elif verb == "status" and not as_json:
        trainer.status()
    else:
        # Where the result is JSON, messages on the way must not mix with it.
        with contextlib.redirect_stdout(terminal.console().file) if as_json else contextlib.nullcontext():
            done = _do(verb, run, trainer, yes=yes, follow=follow, step=step, quiet=quiet, as_json=as_json)
        if as_json:
            print_json(terminal.output(), {"run": run.name, "action": verb, **done})
    follows: dict[str, tuple[str, ...]] = {
        "start": () if dry_run else ("export",) if name is TargetName.local else ("logs", "--follow"),
        "status": ("logs",),
        "logs": ("status",),
        "stop": (),
        "delete": ("export",),
    }
    if verb in follows:
        next_command("train", path, *follows[verb], *again)


def _sorted_out(config: str, action: str) -> tuple[str, Action]:
    """The config and the verb, which may come the other way round: `train status run.yaml`.

    Raises:
        UsageError: neither is a verb, or there is no config.
    """
    verbs = get_args(Action)
    for path, verb in ((config, action), (action, config)):
        for known in verbs:
            if verb == known and (path not in verbs or os.path.isfile(path)):
                return path, known
    if config in verbs:
        raise UsageError(f"train {config}: which run? name its config, as in broetchen train run.yaml {config}")
    raise UsageError(f"train: {action} is none of its actions; they are {', '.join(verbs)}")


def _show_dry_run(run: TrainingConfig, trainer: Target, *, as_json: bool) -> None:
    from beam_pipelines.tables.training import budget_comment

    planned = trainer.dry_run()
    if as_json:
        print_json(
            terminal.output(),
            {"run": run.name, "budget": dataclasses.asdict(planned.budget), "script": planned.script},
        )
    else:
        print(f"{budget_comment(run.name, planned.budget)}\n{planned.script}", end="")


def _do(
    verb: Action,
    run: TrainingConfig,
    trainer: Target,
    *,
    yes: bool,
    follow: bool,
    step: int | None,
    quiet: bool,
    as_json: bool,
) -> dict[str, object]:
    """Does an action; returns the facts that some of them tell with `--json`, else nothing."""
    match verb:
        case "start":
            terminal.will_go_on()
            trainer.start(yes=yes, quiet=quiet)
            return dict(trainer.state().facts) if as_json else {}
        case "status":
            return dict(trainer.state().facts)
        case "logs":
            trainer.logs(follow=follow)
        case "stop":
            trainer.stop()
        case "delete":
            trainer.delete(yes=yes)
        case "export":
            from launch.export.run import export_run

            folder = export_run(run, step=step)
            if not as_json:
                print(f"{run.name}: exported to {folder}")
            return {"folder": folder}
    return {}
