"""Writes MaxText's mixture file for built datasets: weights a record that give the wanted shares of the tokens.

python -m beam_pipelines.write_mixture --config OUTPUT --output FILE
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from beam_pipelines import terminal
from beam_pipelines.mix_config import load_config
from beam_pipelines.tables import OutputFormat, print_cells, print_rows
from launch.mixture import ComponentOutlook, Outlook, outlook, parse_percents
from launch.mixture_file import Mixture, Mounts, eval_files, mixture_json, read_components, train_mixture
from transforms import files
from transforms.errors import UsageError

if TYPE_CHECKING:
    from launch.mixture_simulation import Simulation


@dataclass(frozen=True)
class Training:
    """A training, as far as it uses up data. Each step takes `batch` sequences of `length` tokens, on all devices.

    `steps` is None where it is not known how many there are.
    """

    steps: int | None
    batch: int
    length: int

    @property
    def step_tokens(self) -> int:
        """Tokens a step, where packing leaves no room unused."""
        return self.batch * self.length


@dataclass(frozen=True)
class MixtureSummary:
    """What was written, and what becomes of it.

    `default_shares` says whether the shares are those that the datasets' configs wanted.
    """

    mixture: Mixture
    default_shares: bool
    outlook: Outlook
    training: Training | None
    simulation: Simulation | None


def write_mixture(
    outputs: Sequence[str],
    output: str | None,
    *,
    datasets: Sequence[str] = (),
    shares: str | None = None,
    mounts: Sequence[str] = (),
    eval_output: str | None = None,
    epochs: int = 1,
    steps: int | None = None,
    batch: int | None = None,
    length: int | None = None,
    simulated: int = 0,
    quiet: bool = False,
) -> MixtureSummary:
    """Writes the mixture file of built datasets, and says what becomes of the mixture.

    Args:
        outputs, datasets: see `launch.mixture_file.read_components`. A mix config among the outputs (`.yaml`) names
            its datasets, in its order, where `datasets` names none.
        output: the file for the train mixture, JSON; None writes none.
        shares: `30,50,20` or `a=30,b=50,c=20`, in percent; None for those that the datasets' configs wanted.
        mounts: `gs://bucket=/path`, for each bucket that MaxText sees as a folder.
        eval_output: the file for the value of MaxText's `grain_eval_files`; None writes none.
        epochs: MaxText's `num_epoch`.
        steps, batch, length: of the training, to say at which step data ends; see `Training`. `length` is by default
            the most tokens that a record has.
        simulated: how many records to draw through Grain.

    Raises:
        UsageError: the datasets or shares do not go together, or a path cannot be written into the file.
        BroetchenError: an output has no dataset, a shard cannot be read, or a file cannot be written.
    """
    place = Mounts.parse(mounts)
    parsed = None if shares is None else _parse_shares(shares)
    configs = [one for one in outputs if one.endswith((".yaml", ".yml"))]
    in_order = [name for config in configs for name in load_config(config).datasets]
    mixture = read_components([one for one in outputs if one not in configs], datasets or in_order)
    training = _training(mixture, steps, batch, length)
    wanted = mixture.shares(parsed)
    found = outlook(mixture.components, wanted, epochs)
    train = mixture_json(train_mixture(mixture.components, wanted, place))
    evaluation = None if eval_output is None else eval_files(mixture.components, wanted, place) + "\n"
    simulation = None
    if simulated:
        # Grain takes seconds to import.
        from launch.mixture_simulation import simulate

        weights = {one.name: one.weight for one in found.components}
        with _progress(simulated, quiet) as advance:
            simulation = simulate(mixture, weights, simulated, epochs=epochs, advance=advance)
    if output is not None:
        files.write_bytes(output, train.encode())
    if eval_output is not None and evaluation is not None:
        files.write_bytes(eval_output, evaluation.encode())
    return MixtureSummary(mixture, shares is None, found, training, simulation)


def _parse_shares(text: str) -> Mapping[str, Fraction] | Sequence[Fraction]:
    """Shares as the command line has them.

    >>> _parse_shares("30,70%"), _parse_shares("a=30,b=70")
    ((Fraction(3, 10), Fraction(7, 10)), {'a': Fraction(3, 10), 'b': Fraction(7, 10)})
    """
    parts = [part.strip() for part in text.split(",")]
    if not any("=" in part for part in parts):
        return parse_percents(parts)
    pairs = [part.rpartition("=") for part in parts]
    names = [name.strip() for name, _, _ in pairs]
    for name, part in zip(names, parts, strict=True):
        if not name:
            raise UsageError(f"--shares: {part!r} is not of the form NAME=SHARE, as the others are")
        if names.count(name) > 1:
            raise UsageError(f"--shares: {name} comes twice")
    return dict(zip(names, parse_percents([share for _, _, share in pairs]), strict=True))


def _training(mixture: Mixture, steps: int | None, batch: int | None, length: int | None) -> Training | None:
    if batch is None:
        if steps is not None or length is not None:
            raise UsageError(
                f"--{'steps' if steps is not None else 'length'} says nothing about data without --batch: name the "
                "sequences of a step (per_device_batch_size × devices × gradient_accumulation_steps)"
            )
        return None
    length = length or mixture.records.max_tokens
    if length is None:
        raise UsageError("--batch: the datasets are text, whose records are of any length; name --length, too")
    return Training(steps, batch, length)


@contextlib.contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    console = terminal.console()
    columns = (TextColumn("drawing records"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task("drawing records", total=total)
        yield lambda count: progress.advance(task, count)


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
    if summary.training is not None:
        row["last_step"] = one.lasts_tokens // summary.training.step_tokens
        if summary.training.steps is not None:
            row["epochs_after_steps"] = float(summary.outlook.epochs_after(one, _tokens(summary.training)))
    if summary.simulation is not None:
        row["simulated_records"] = summary.simulation.records[one.name]
        row["simulated_tokens"] = summary.simulation.tokens[one.name]
        row["simulated_share"] = summary.simulation.share(one.name)
    return row


def _tokens(training: Training) -> int:
    return (training.steps or 0) * training.step_tokens


def _print_table(console: Console, summary: MixtureSummary) -> None:
    found, training, simulation = summary.outlook, summary.training, summary.simulation
    columns = ["dataset", "tokens", "records", "tokens/record", "wanted", "expected", "weight"]
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
            f"{float(one.wanted):.3%}",
            f"{float(one.share):.3%}",
            f"{one.weight:.12g}",
        ]
        if simulation is not None:
            row += [
                f"{simulation.records[one.name]:,}",
                f"{simulation.tokens[one.name]:,}",
                f"{simulation.share(one.name):.3%}",
            ]
        row += [f"{one.lasts:,}", f"{float(one.epochs_at_end):.2f}"]
        if training is not None:
            row.append(f"{one.lasts_tokens // training.step_tokens:,}")
            if training.steps is not None:
                row.append(f"{float(found.epochs_after(one, _tokens(training))):.2f}")
        rows.append(row)
    print_cells(console, columns, rows, spare=("drawn records", "drawn tokens", "tokens/record", "ends at record"))
    console.print(
        f"The mixture yields {found.records:,} records, about {found.tokens:,} tokens, with num_epoch={found.epochs}.",
        highlight=False,
        soft_wrap=True,
    )


def notes(summary: MixtureSummary) -> list[str]:
    """What the table does not show at a glance: a sentence each."""
    found, training, simulation = summary.outlook, summary.training, summary.simulation
    said = []
    short = [one.component for one in found.components if one.component.tokens < one.component.budget]
    if summary.default_shares:
        said += [
            f"{one.name} has {one.tokens:,} of the {one.budget:,} tokens that its config wanted; the shares are those "
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
    if training is not None and training.steps is not None and found.tokens < _tokens(training):
        needed = found.epochs_needed(_tokens(training))
        most = max(found.components, key=lambda one: found.epochs_after(one, _tokens(training)))
        said.append(
            f"the data ends at about step {found.tokens // training.step_tokens:,} of {training.steps:,}, and the "
            f"training with it; num_epoch={needed} has enough for all steps, which read {most.name} "
            f"{float(found.epochs_after(most, _tokens(training))):.2f} times"
        )
    if simulation is not None:
        if simulation.drawn < simulation.wanted_records:
            said.append(f"the mixture ended after {simulation.drawn:,} of {simulation.wanted_records:,} records drawn")
        if not simulation.shuffled:
            said.append("the records were drawn in their order, and not shuffled as in training: not all are local")
    return said


if __name__ == "__main__":
    from beam_pipelines.cli import module_main

    module_main("mix", "--config")
