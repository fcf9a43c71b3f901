"""The charts of a report: mixture, lengths of documents, padding, and tokens over time."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any
from xml.etree import ElementTree

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from beam_pipelines.report.data import LEAST_SECONDS, OutputReport
from beam_pipelines.report.looks import FONT, VARIABLES, WIDE, Look
from transforms.counting.text_count import Lengths
from transforms.quantities import format_count, format_share
from transforms.sampling.packing import Packing

_DOTS_PER_INCH = 150
_ROW_INCHES = 0.34
_LONGEST_NAME = 20
_HALF = Fraction(1, 2)


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart that can be drawn in several looks.

    Attributes:
        name: of its file, without an extension.
        title: that stands above it.
        description: of the picture, for people who cannot see it.
    """

    name: str
    title: str
    description: str
    _draw: Callable[[OutputReport, Look], Figure]
    _report: OutputReport

    def svg(self, look: Look) -> str:
        """As an SVG element of a page, on no background, whose text is text and whose colours are the page's."""
        # Other charts of the page have other ids.
        settings = look.settings() | {"svg.hashsalt": f"{self.name} {look.inches}"}
        with rc_context(settings):  # type: ignore[arg-type]
            figure = self._draw(self._report, look)
            return _as_element(_saved(figure, "svg", transparent=True, metadata={"Date": None, "Creator": None}))

    def png(self) -> bytes:
        """As a PNG on white, 150 dots per inch, with its title."""
        with rc_context(WIDE.settings()):  # type: ignore[arg-type]
            figure = self._draw(self._report, WIDE)
            figure.suptitle(self.title, x=0.01, ha="left", fontsize=FONT + 3, fontweight="bold")
            return _saved(figure, "png", facecolor=WIDE.background, dpi=_DOTS_PER_INCH)


def _saved(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


# Kept of a drawing: shapes and text, and of their attributes those that place and draw them.
_ELEMENTS = frozenset({"svg", "g", "defs", "clipPath", "path", "rect", "text", "use"})
_ATTRIBUTES = frozenset({"clip-path", "d", "height", "style", "transform", "viewBox", "width", "x", "y"})
_COLOUR = re.compile("|".join(VARIABLES))


def _as_element(drawing: bytes) -> str:
    root = ElementTree.fromstring(drawing)
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) not in _ELEMENTS:
                parent.remove(child)
    for element in root.iter():
        element.tag, given = _local(element.tag), dict(element.attrib)
        element.attrib.clear()
        for name, value in given.items():
            # A part that others refer to keeps its id; groups have one each, which other charts have as well.
            if name in _ATTRIBUTES or (name == "id" and element.tag in ("clipPath", "path")):
                element.set(name, value)
            elif _local(name) == "href" and value.startswith("#"):
                element.set("href", value)
        if style := element.get("style"):
            element.set("style", _COLOUR.sub(lambda found: f"var({VARIABLES[found[0]]})", style))
    # The page says how wide it is.
    root.attrib.pop("width")
    root.attrib.pop("height")
    return ElementTree.tostring(root, encoding="unicode", method="html")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def charts(report: OutputReport) -> list[Chart]:
    """The charts that there is something to draw for: `mixture` and `documents` always."""
    drawn = [
        Chart("mixture", "Mixture", _describe_mixture(report), _draw_mixture, report),
        Chart("documents", "Length of documents", _describe_documents(report), _draw_documents, report),
    ]
    if any(dataset.packing for dataset in report.datasets):
        drawn.append(
            Chart(
                "packing",
                f"Padding of sequences of {report.length:,}",
                _describe_packing(report),
                _draw_packing,
                report,
            )
        )
    written = report.written
    if len(written) > 1 and written[-1].seconds - written[0].seconds >= LEAST_SECONDS:
        drawn.append(Chart("throughput", "Throughput", _describe_throughput(report), _draw_throughput, report))
    return drawn


def _figure(look: Look, inches: float) -> Figure:
    figure = Figure(figsize=(look.inches, inches), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _name(name: str, look: Look) -> str:
    return f"{name[: _LONGEST_NAME - 1]}…" if look.is_narrow and len(name) > _LONGEST_NAME else name


def _rows(axes: Axes, names: list[str], look: Look) -> None:
    """A row for each name, the first on top."""
    axes.set_yticks(range(len(names)), [_name(name, look) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x")


def _share_axis(axes: Axes, look: Look, most: float) -> None:
    """Shares from 0, with room beside the longest bar for its label."""
    axes.set_xlim(0, max(most, 0.01) * (1.25 if look.is_narrow else 1.1))
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.xaxis.set_major_locator(MaxNLocator(4 if look.is_narrow else 8, steps=[1, 2, 5, 10]))


def _draw_mixture(report: OutputReport, look: Look) -> Figure:
    figure = _figure(look, 0.95 + _ROW_INCHES * len(report.datasets))
    axes = figure.subplots()
    rows = range(len(report.datasets))
    written = [report.share(dataset, lambda split: split.to_read) for dataset in report.datasets]
    wanted = [report.share(dataset, lambda split: split.budget) for dataset in report.datasets]
    axes.barh(rows, written, height=0.62, color=look.accent, label="written")
    axes.plot(wanted, rows, "|", color=look.ink, markersize=17, markeredgewidth=1.8, label="wanted")
    for row, share in zip(rows, written, strict=True):
        axes.annotate(
            format_share(share), (max(share, wanted[row]), row), (7, 0), textcoords="offset points", va="center"
        )
    _rows(axes, [dataset.name for dataset in report.datasets], look)
    _share_axis(axes, look, max(*written, *wanted))
    axes.set_xlabel("share of the train tokens")
    figure.legend(loc="outside upper right", ncols=2, handlelength=1.2)
    return figure


def _describe_mixture(report: OutputReport) -> str:
    shares = ", ".join(
        f"{one.name} {format_share(report.share(one, lambda split: split.to_read))} of "
        f"{format_share(report.share(one, lambda split: split.budget))} wanted"
        for one in report.datasets
    )
    return f"Bars: each dataset's share of the train tokens. {shares}."


def _draw_documents(report: OutputReport, look: Look) -> Figure:
    count = len(report.datasets)
    figure = _figure(look, 0.75 + 0.66 * count)
    panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    read = Lengths.sum(dataset.sample.documents for dataset in report.datasets)
    shortest, longest = (int(read.lengths[0]), int(read.lengths[-1])) if read.documents else (1, 1)
    # Four bars for each doubling, and as many more as small numbers of tokens have no bar of their own.
    edges = np.unique(np.round(np.exp2(np.arange(4 * np.log2(shortest) // 1, 4 * np.log2(longest) + 5) / 4)))
    for axes, dataset in zip(panels, report.datasets, strict=True):
        lengths = dataset.sample.documents
        counts, _ = np.histogram(lengths.lengths, edges, weights=lengths.counts)
        axes.stairs(counts, edges, fill=True, color=look.accent)
        # Above the bars is room for a label.
        axes.set_ylim(0, 1.5 * counts.max(initial=0) or 1)
        if dataset.manifest.record_format == "tokens":
            axes.axvline(dataset.manifest.max_tokens, color=look.muted, linewidth=1, linestyle=(0, (3, 2)))
        if (median := lengths.quantile(_HALF)) is not None:
            axes.axvline(median, color=look.ink, linewidth=1.4)
            axes.annotate(
                f"median {median:,.0f}",
                (median, 1),
                (4, 0),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                va="top",
                fontsize=FONT - 1,
                bbox={"facecolor": look.background, "edgecolor": "none", "pad": 1},
            )
        axes.set_yticks([])
        axes.set_ylabel(_name(dataset.name, look), rotation=0, ha="right", va="center", color=look.ink, labelpad=6)
    last = panels[-1]
    last.set_xscale("log")
    last.set_xlim(edges[0], edges[-1])
    last.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    last.xaxis.set_minor_formatter(NullFormatter())
    last.set_xlabel("tokens per document" + ("" if look.is_narrow else " (dashed: the longest that a record can be)"))
    return figure


def _describe_documents(report: OutputReport) -> str:
    medians = ", ".join(f"{one.name} {one.sample.documents.quantile(_HALF) or 0:,.0f}" for one in report.datasets)
    return f"Histograms: how many documents have how many tokens, for each dataset. Medians: {medians}."


def _draw_packing(report: OutputReport, look: Look) -> Figure:
    rows = _packings(report)
    figure = _figure(look, 0.95 + 1.25 * _ROW_INCHES * len(rows))
    axes = figure.subplots()
    for offset, colour, label, values in (
        (-0.19, look.accent, "packed", [packing.padding for _, packing in rows]),
        (0.19, look.pale, "a record a sequence", [packing.padding_alone for _, packing in rows]),
    ):
        places = np.arange(len(rows)) + offset
        bars = axes.barh(places, values, height=0.34, color=colour, label=label)
        axes.bar_label(bars, [format_share(value) for value in values], padding=4, fontsize=FONT - 1)
    _rows(axes, [name for name, _ in rows], look)
    _share_axis(axes, look, max(max(packing.padding, packing.padding_alone) for _, packing in rows))
    axes.set_xlabel("padding, of all positions")
    figure.legend(loc="outside upper right", ncols=2, handlelength=1.2)
    return figure


def _packings(report: OutputReport) -> list[tuple[str, Packing]]:
    rows = [(one.name, one.packing) for one in report.datasets if one.packing]
    return [*rows, ("all, mixed", report.mixed[report.batch])] if report.mixed and len(rows) > 1 else rows


def _describe_packing(report: OutputReport) -> str:
    rows = "; ".join(
        f"{name} {format_share(packing.padding)} packed, {format_share(packing.padding_alone)} with a record a sequence"
        for name, packing in _packings(report)
    )
    return f"Bars: the part of all positions of sequences of {report.length:,} tokens that is padding. {rows}."


_UNITS = ((1.0, "seconds"), (60.0, "minutes"), (3600.0, "hours"), (86400.0, "days"))


def _draw_throughput(report: OutputReport, look: Look) -> Figure:
    written = report.written
    span = written[-1].seconds - written[0].seconds
    unit, unit_name = [unit for unit in _UNITS if span >= 2 * unit[0] or unit[0] == 1.0][-1]
    times = np.array([(file.seconds - written[0].seconds) / unit for file in written])
    tokens = np.cumsum([float(file.tokens) for file in written])
    figure = _figure(look, 2.6)
    axes = figure.subplots()
    axes.fill_between(times, tokens, step="post", color=look.accent, alpha=0.22, linewidth=0)
    axes.step(times, tokens, where="post", color=look.accent, linewidth=1.8)
    axes.set_xlim(0, times[-1])
    axes.set_ylim(0, tokens[-1] * 1.05)
    axes.grid(axis="y")
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(round(value))))
    axes.tick_params(axis="y", labelcolor=look.muted)
    axes.set_xlabel(f"{unit_name} since the first file")
    axes.set_title("tokens in files so far", loc="left", fontsize=FONT, color=look.muted)
    return figure


def _describe_throughput(report: OutputReport) -> str:
    written = report.written
    return (
        f"Line: tokens in the files of the output, by when each was last written. {len(written):,} files with "
        f"{sum(file.tokens for file in written):,} tokens, the last {written[-1].seconds - written[0].seconds:,.1f} "
        "seconds after the first."
    )
