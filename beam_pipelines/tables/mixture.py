"""What `broetchen mix` shows: a row for each dataset of the mixture, and what the rows do not show at a glance."""

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


def _row(summary: MixtureSummary, one: ComponentOutlook) -> dict[str, str | int | float]:
    row: dict[str, str | int | float] = {
        "dataset": one.name,
        "folder": one.component.folder,
        "tokens": one.component.tokens,
        "records": one.component.records,
        "wanted_share": float(one.wanted),
        "expected_share": float(one.share),
        "weight": one.weight,
        "grain_integer": one.integer,
        "lasts_records": one.lasts,
        "lasts_tokens": one.lasts_tokens,
        "epochs_at_end": float(one.epochs_at_end),
    }
    if _repeated(summary):
        row["passes"] = one.component.passes or 1.0
    if summary.training is not None:
        row["last_step"] = one.lasts_tokens // summary.training.step_tokens
        if (tokens := summary.training.tokens) is not None:
            row["epochs_after_steps"] = float(summary.outlook.epochs_after(one, tokens))
    if summary.simulation is not None:
        row["simulated_records"] = summary.simulation.records[one.name]
        row["simulated_tokens"] = summary.simulation.tokens[one.name]
        row["simulated_share"] = summary.simulation.share(one.name)
    return row


def _print_table(console: Console, summary: MixtureSummary) -> None:
    found, training, simulation = summary.outlook, summary.training, summary.simulation
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
    for one in found.components:
        row = [
            one.name,
            f"{one.component.tokens:,}",
            f"{one.component.records:,}",
            f"{float(one.mean):,.1f}",
            format_share(float(one.wanted)),
            format_share(float(one.share)),
            f"{one.weight:.12g}",
        ]
        if repeated:
            row.insert(2, f"{one.component.passes or 1:.2f}")
        if simulation is not None:
            row += [
                f"{simulation.records[one.name]:,}",
                f"{simulation.tokens[one.name]:,}",
                format_share(simulation.share(one.name)),
            ]
        row += [f"{one.lasts:,}", f"{float(one.epochs_at_end):.2f}"]
        if training is not None:
            row.append(f"{one.lasts_tokens // training.step_tokens:,}")
            if training.tokens is not None:
                row.append(f"{float(found.epochs_after(one, training.tokens)):.2f}")
        rows.append(row)
    print_cells(console, columns, rows, spare=("drawn records", "drawn tokens", "tokens/record", "ends at record"))
    console.print(
        f"The mixture yields {found.records:,} records, about {found.tokens:,} tokens, with num_epoch={found.epochs}.",
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
    """On datasets that are to be read several times: by how many tokens are trained, or else by what configs wanted."""
    found, training = summary.outlook, summary.training
    said = [
        f"{one.name} holds {one.component.tokens:,} tokens, written once, of {one.component.to_read:,} that are to be "
        f"read: {one.component.passes:.2f} passes"
        for one in _repeated(summary)
    ]
    wanted = wanted_tokens(found) if summary.default_shares and said else None
    if wanted is not None and (needed := found.epochs_needed(wanted)) > found.epochs:
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
        said += beyond_their_configs(found, tokens) or beyond_what_is_worthwhile(found, tokens)
    return said


def notes(summary: MixtureSummary) -> list[str]:
    """What the table does not show at a glance: a sentence each."""
    found, training, simulation = summary.outlook, summary.training, summary.simulation
    said = []
    short = [one.component for one in found.components if one.component.to_read < one.component.budget]
    said += _of_repeats(summary)
    if summary.default_shares:
        said += [
            f"{one.name} has {one.to_read:,} of the {one.budget:,} tokens that its config wanted; the shares are those "
            "that were wanted (--shares sets others)"
            for one in short
        ]
    if left := found.left_over():
        first = found.first
        where = f"after {found.records:,} records, about {found.tokens:,} tokens"
        if training is not None:
            where += f", at about step {found.tokens // training.step_tokens:,}"
        others = ", ".join(f"{one.name} {float(one.epochs_at_end):.2f} times" for one in left)
        said.append(
            f"{first.name} runs out {where}, and the mixture ends with it; by then it has been read "
            f"{float(first.epochs_at_end):.2f} times, {others}"
        )
    if training is not None and (wanted := training.tokens) is not None and found.tokens < wanted:
        needed = found.epochs_needed(wanted)
        most = max(found.components, key=lambda one: found.epochs_after(one, wanted))
        said.append(
            f"the data ends at about step {found.tokens // training.step_tokens:,} of {training.steps:,}, and the "
            f"training with it; num_epoch={needed} has enough for all steps, which read {most.name} "
            f"{float(found.epochs_after(most, wanted)):.2f} times"
        )
    if simulation is not None:
        if simulation.drawn < simulation.wanted_records:
            said.append(f"the mixture ended after {simulation.drawn:,} of {simulation.wanted_records:,} records drawn")
        if not simulation.shuffled:
            said.append("the records were drawn in their order, and not shuffled as in training: not all are local")
    return said
