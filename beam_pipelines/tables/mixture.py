"""The table of `broetchen mix`: a row for each dataset of the mixture, and notes on all that the rows do not show."""

from __future__ import annotations

from rich.console import Console

from beam_pipelines.console.layout import OutputFormat, print_cells, print_rows
from beam_pipelines.console.terminal import print_as_is
from beam_pipelines.jobs.mixture import MixtureSummary
from launch.mixture.outlook import ComponentOutlook
from launch.mixture.repeats import beyond_their_configs, beyond_what_is_worthwhile, wanted_tokens
from transforms.quantities import format_share


def print_mixture(console: Console, summary: MixtureSummary, output_format: OutputFormat) -> None:
    """Each component with its shares and weight, and when it ends."""
    if output_format == "table":
        _print_table(console, summary)
    else:
        print_rows(console, [_row(summary, one) for one in summary.outlook.components], output_format)


def _row(summary: MixtureSummary, part: ComponentOutlook) -> dict[str, str | int | float]:
    row: dict[str, str | int | float] = {
        "dataset": part.name,
        "folder": part.component.folder,
        "tokens": part.component.tokens,
        "records": part.component.records,
        "wanted_share": float(part.wanted),
        "expected_share": float(part.share),
        "weight": part.weight,
        "grain_integer": part.integer,
        "lasts_records": part.lasts,
        "lasts_tokens": part.lasts_tokens,
        "epochs_at_end": float(part.epochs_at_end),
    }
    if _repeated(summary):
        row["passes"] = part.component.passes or 1.0
    if summary.training is not None:
        row["last_step"] = part.lasts_tokens // summary.training.step_tokens
        if (tokens := summary.training.tokens) is not None:
            row["epochs_after_steps"] = float(summary.outlook.epochs_after(part, tokens))
    if summary.simulation is not None:
        row["simulated_records"] = summary.simulation.records[part.name]
        row["simulated_tokens"] = summary.simulation.tokens[part.name]
        row["simulated_share"] = summary.simulation.share(part.name)
    return row


def _print_table(console: Console, summary: MixtureSummary) -> None:
    outlook, training, simulation = summary.outlook, summary.training, summary.simulation
    repeated = bool(_repeated(summary))
    columns = ["dataset", "tokens", "records", "tokens/record", "wanted", "expected", "weight"]
    if repeated:
        columns.insert(2, "passes")
    if simulation is not None:
        columns += ["drawn records", "drawn tokens", "drawn share"]
    columns += ["ends at record", "epochs at end"]
    if training is not None:
        columns.append("last step ≈")
        if training.steps is not None:
            columns.append(f"epochs at {training.steps:,} ≈")
    rows = []
    for part in outlook.components:
        row = [
            part.name,
            f"{part.component.tokens:,}",
            f"{part.component.records:,}",
            f"{float(part.mean):,.1f}",
            format_share(float(part.wanted)),
            format_share(float(part.share)),
            f"{part.weight:.12g}",
        ]
        if repeated:
            row.insert(2, f"{part.component.passes or 1:.2f}")
        if simulation is not None:
            row += [
                f"{simulation.records[part.name]:,}",
                f"{simulation.tokens[part.name]:,}",
                format_share(simulation.share(part.name)),
            ]
        row += [f"{part.lasts:,}", f"{float(part.epochs_at_end):.2f}"]
        if training is not None:
            row.append(f"{part.lasts_tokens // training.step_tokens:,}")
            if training.tokens is not None:
                row.append(f"{float(outlook.epochs_after(part, training.tokens)):.2f}")
        rows.append(row)
    print_cells(console, columns, rows, spare=("drawn records", "drawn tokens", "tokens/record", "ends at record"))
    console.print(
        f"The mixture yields {outlook.records:,} records, about {outlook.tokens:,} tokens, "
        f"with num_epoch={outlook.epochs}.",
        highlight=False,
        soft_wrap=True,
    )


def print_written(console: Console, summary: MixtureSummary, output: str | None, eval_output: str | None) -> None:
    """Which files were written, and as which parameters MaxText takes them; or that none was."""
    count = len(summary.outlook.components)
    what = f"{count:,} dataset{'' if count == 1 else 's'}"
    lines = []
    if output is not None:
        lines.append(f"{output} is written: the mixture of {what}, for grain_train_mixture_config_path.")
    if eval_output is not None:
        lines.append(f"{eval_output} is written: the eval splits of {what}, for grain_eval_files.")
    for line in lines or ["Nothing is written: --output names the mixture file."]:
        print_as_is(console, line)


def _repeated(summary: MixtureSummary) -> list[ComponentOutlook]:
    return [one for one in summary.outlook.components if one.component.passes is not None]


def _of_repeats(summary: MixtureSummary) -> list[str]:
    """On datasets that are to be read several times: by the tokens of the training, else by those of the configs."""
    outlook, training = summary.outlook, summary.training
    said = [
        f"{part.name} holds {part.component.tokens:,} tokens, written once, of {part.component.to_read:,} that are to "
        f"be read: {part.component.passes:.2f} passes"
        for part in _repeated(summary)
    ]
    wanted = wanted_tokens(outlook) if summary.default_shares and said else None
    if wanted is not None and (needed := outlook.epochs_needed(wanted)) > outlook.epochs:
        where = ""
        if training is not None:
            where = f", which are {wanted // training.step_tokens:,} steps"
        said.append(
            "MaxText repeats no dataset by itself, but all of a mixture, each up to num_epoch times: "
            f"num_epoch={needed} has enough for the {wanted:,} tokens of all passes{where}, and only the number of "
            "steps ends it there"
        )
    tokens = training.tokens if training is not None and training.tokens is not None else wanted
    if tokens is not None:
        said += beyond_their_configs(outlook, tokens) or beyond_what_is_worthwhile(outlook, tokens)
    return said


def notes(summary: MixtureSummary) -> list[str]:
    """The notes below the table, a sentence each, on all that it does not show at a glance."""
    outlook, training, simulation = summary.outlook, summary.training, summary.simulation
    said = []
    short = [part.component for part in outlook.components if part.component.to_read < part.component.budget]
    said += _of_repeats(summary)
    if summary.default_shares:
        said += [
            f"{component.name} has {component.to_read:,} of the {component.budget:,} tokens that its config "
            "wanted; the shares are those that were wanted (--shares sets others)"
            for component in short
        ]
    if left := outlook.left_over():
        first = outlook.first
        where = f"after {outlook.records:,} records, about {outlook.tokens:,} tokens"
        if training is not None:
            where += f", at about step {outlook.tokens // training.step_tokens:,}"
        others = ", ".join(f"{part.name} {float(part.epochs_at_end):.2f} times" for part in left)
        said.append(
            f"{first.name} runs out {where}, and the mixture ends with it; by then it has been read "
            f"{float(first.epochs_at_end):.2f} times, {others}"
        )
    if training is not None and (wanted := training.tokens) is not None and outlook.tokens < wanted:
        needed = outlook.epochs_needed(wanted)
        most = max(outlook.components, key=lambda part: outlook.epochs_after(part, wanted))
        said.append(
            f"the data ends at about step {outlook.tokens // training.step_tokens:,} of {training.steps:,}, and the "
            f"training with it; num_epoch={needed} has enough for all steps, which read {most.name} "
            f"{float(outlook.epochs_after(most, wanted)):.2f} times"
        )
    if simulation is not None:
        if simulation.drawn < simulation.wanted_records:
            said.append(f"the mixture ended after {simulation.drawn:,} of {simulation.wanted_records:,} records drawn")
        if not simulation.shuffled:
            said.append("the records were drawn in their order, and not shuffled as in training: not all are local")
    return said
