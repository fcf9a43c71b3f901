"""Draws an evaluation of tokenizers: a panel for each of the metrics that matter most, a mark for each group.

Points and not bars: efficiencies differ by hundredths, which bars that begin at 0 would hide.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from transforms.errors import UsageError
from transforms.evaluation.metrics import metric
from transforms.files import storage

if TYPE_CHECKING:
    from beam_pipelines.tokenizers.evaluate import Evaluation

SUFFIXES = (".png", ".svg")

_PANELS = ("bytes_per_token", "fertility", "renyi_efficiency")
# Okabe and Ito 2008, "Color Universal Design": eight colours that people with any colour vision tell apart. Black is
# for all groups together. There is one more mark than colours, so that later groups get other pairs of the two.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
_MARKS = ("o", "s", "^", "v", "P", "X", "p", "h")
_ALL_COLOUR, _ALL_MARK = "#000000", "D"

_FRAME_INCHES, _PANEL_INCHES = 1.9, 3.6
_INCHES_PER_LETTER = 0.09
# A tokenizer's row: the marks of its groups one below the other, as many of them lie at about the same value.
_ROW_INCHES, _MARK_INCHES = 0.16, 0.1


def check_plot_path(path: str) -> None:
    """Checks the name of a plot, before any work is done for it.

    Raises:
        UsageError: the name says neither PNG nor SVG.
    """
    if not path.lower().endswith(SUFFIXES):
        raise UsageError(f"--plot {path}: the name must end in .png or .svg, which says what to draw")


def plot_evaluation(evaluation: Evaluation, path: str) -> None:
    """Draws an evaluation as a PNG (150 dots per inch) or SVG file, on any of Beam's filesystems.

    Two plots of equal results by one version of matplotlib are equal files.

    Raises:
        UsageError: the name says neither PNG nor SVG.
        BroetchenError: the file cannot be written.
    """
    check_plot_path(path)
    kind = os.path.splitext(path)[1][1:].lower()
    buffer = io.BytesIO()
    # By default salt and date would make each SVG another file.
    with rc_context({"svg.hashsalt": "broetchen", "axes.spines.top": False, "axes.spines.right": False}):
        figure = _draw(evaluation)
        figure.savefig(buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    storage.write_bytes(path, buffer.getvalue())


def _draw(evaluation: Evaluation) -> Figure:
    names = [tokenizer.name for tokenizer in evaluation.tokenizers]
    groups = evaluation.shown_groups
    width = _INCHES_PER_LETTER * max(map(len, names)) + _PANEL_INCHES * len(_PANELS)
    row_inches = _ROW_INCHES + _MARK_INCHES * len(groups)
    figure = Figure(figsize=(width, _FRAME_INCHES + row_inches * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Sequence[Axes] = figure.subplots(1, len(_PANELS), sharey=True)
    for panel, key in zip(panels, _PANELS, strict=True):
        drawn = metric(key)
        for number, group in enumerate(groups):
            is_all = number == len(evaluation.groups) - 1
            values = [evaluation.metrics(tokenizer, group)[key] for tokenizer in evaluation.tokenizers]
            lower = (number - (len(groups) - 1) / 2) * _MARK_INCHES / row_inches
            points = [(value, row + lower) for row, value in enumerate(values) if value is not None]
            panel.scatter(
                [value for value, _ in points],
                [row for _, row in points],
                label=group,
                s=36,
                color=_ALL_COLOUR if is_all else _COLOURS[number % len(_COLOURS)],
                marker=_ALL_MARK if is_all else _MARKS[number % len(_MARKS)],
                edgecolors="white",
                linewidths=0.6,
                zorder=3,
            )
        panel.set_title(drawn.title, fontsize=11)
        panel.set_xlabel(f"{drawn.better} is better" if drawn.better else "", fontsize=9)
        panel.grid(axis="x", color="#DDDDDD", linewidth=0.7, zorder=0)
        for row in range(len(names) - 1):
            panel.axhline(row + 0.5, color="#EEEEEE", linewidth=0.7)
        panel.margins(x=0.08)
        panel.set_ylim(len(names) - 0.5, -0.5)  # the first on top
    panels[0].set_yticks(range(len(names)), names)
    handles, titles = panels[0].get_legend_handles_labels()
    columns = int(width / (_INCHES_PER_LETTER * max(map(len, titles)) + 0.6))
    figure.legend(handles, titles, loc="outside lower center", ncols=min(max(1, columns), len(titles)), frameon=False)
    return figure
