"""The course of the loss, as a table and as a plot."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from launch.local.log import History, Step
from transforms.files import storage

# Okabe and Ito 2008, "Color Universal Design": blue and orange are told apart by people with any colour vision.
_TRAIN, _EVAL = "#0072B2", "#E69F00"
# As many points as can be told apart along the line.
_MARKED_STEPS = 60


def print_losses(console: Console, history: History, *, rows: int = 12) -> None:
    """Prints a table of some of the steps: the first, the last, those with an evaluation, and others between them."""
    evaluated = bool(history.eval_losses)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = ["step", "loss", *(["eval loss"] if evaluated else []), "perplexity", "learning rate", "tokens"]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    seen = 0
    totals = [seen := seen + step.tokens for step in history.steps]
    for index in _chosen(history, rows):
        step = history.steps[index]
        on_eval = history.eval_losses.get(step.number)
        table.add_row(
            str(step.number),
            f"{step.loss:.3f}",
            *([f"{on_eval:.3f}" if on_eval is not None else ""] if evaluated else []),
            f"{step.perplexity:,.0f}" if step.perplexity >= 100 else f"{step.perplexity:.2f}",
            f"{step.learning_rate:.2e}",
            f"{totals[index]:,}",
        )
    console.print(table)


def _chosen(history: History, rows: int) -> Sequence[int]:
    """The indexes of the steps to show: `rows` at most, unless there are more evaluations than that."""
    evaluated = {index for index, step in enumerate(history.steps) if step.number in history.eval_losses}
    last, others = len(history.steps) - 1, max(2, rows - len(evaluated))
    return sorted(evaluated | {round(row * last / (others - 1)) for row in range(others)})


def plot_losses(history: History, title: str, path: str) -> None:
    """Draws the losses by step as a PNG file (150 dots per inch), on any of Beam's filesystems.

    Raises:
        BroetchenError: the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        FigureCanvasAgg(figure)
        panel = figure.subplots()
        mark = "o" if len(history.steps) <= _MARKED_STEPS else None
        for start in _starts(history.steps):
            numbers, losses = [step.number for step in start], [step.loss for step in start]
            panel.plot(numbers, losses, color=_TRAIN, marker=mark, markersize=3, linewidth=1.2, label="train")
            if start[0].start:
                panel.axvline(start[0].number, color="#999999", linewidth=0.8, linestyle=":", label="started again")
        if history.eval_losses:
            numbers, losses = list(history.eval_losses), list(history.eval_losses.values())
            panel.plot(numbers, losses, color=_EVAL, marker="D", markersize=5, linewidth=1.2, label="eval")
        panel.set(title=title, xlabel="step", ylabel="loss, nats a token")
        panel.grid(axis="y", color="#DDDDDD", linewidth=0.7)
        handles, labels = panel.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        panel.legend(list(unique.values()), list(unique), frameon=False)
        figure.savefig(buffer, format="png", dpi=150)
    storage.write_bytes(path, buffer.getvalue())


def _starts(steps: Sequence[Step]) -> list[list[Step]]:
    """The steps, apart by the start of the run that they are from."""
    starts: list[list[Step]] = []
    for step in steps:
        if not starts or starts[-1][-1].start != step.start:
            starts.append([])
        starts[-1].append(step)
    return starts
