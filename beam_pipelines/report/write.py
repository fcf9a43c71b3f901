"""Writes a report on built datasets: one HTML page that a browser opens without a network, and its charts as PNGs."""

from __future__ import annotations

from beam_pipelines.console.progress import bar
from beam_pipelines.report.charts import charts
from beam_pipelines.report.data import DEFAULT_BATCH, OutputReport, read_report
from beam_pipelines.report.page import render_report
from transforms.files import storage
from transforms.progress.display import counted


def write_report(
    output: str,
    page: str,
    *,
    png_folder: str | None = None,
    length: int | None = None,
    batch: int = DEFAULT_BATCH,
    quiet: bool = False,
) -> OutputReport:
    """Writes the report on an output.

    Args:
        output: a folder of built datasets, or one dataset; local or remote.
        page: the HTML file; local or remote. A file that is there is replaced.
        png_folder: the folder for the charts as PNGs; None writes none.
        length, batch: of the training; see `beam_pipelines.report.data.read_report`.

    Raises:
        BroetchenError: there is no finished dataset, a shard is missing or damaged, or a file cannot be written.
        UsageError: the tokenizer of a dataset of text cannot be loaded.
    """
    with bar("reading samples", None, counted("samples"), quiet=quiet) as progress:
        report = read_report(output, length=length, batch=batch, advance=progress.advance)
        drawn = charts(report)
        rendered = render_report(report, drawn)
    storage.write_bytes(page, rendered.encode())
    if png_folder is not None:
        for chart in drawn:
            storage.write_bytes(storage.join(png_folder, f"{chart.name}.png"), chart.png())
    return report
