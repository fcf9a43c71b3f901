"""The tables of tokenizers: a training, and an evaluation side by side, for a terminal, as JSON and as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from beam_pipelines.console import terminal
from beam_pipelines.console.layout import OutputFormat, print_json, print_rows, table_width
from beam_pipelines.tokenizers.evaluate import Evaluation
from beam_pipelines.tokenizers.folder import TOKENIZER
from beam_pipelines.tokenizers.train import TrainingSummary
from transforms.bpe.long_words import MOST_BYTES
from transforms.evaluation.metrics import METRICS, Metric
from transforms.files import storage
from transforms.quantities import format_share


def print_training(console: Console, summary: TrainingSummary) -> None:
    """Prints the texts that a tokenizer was trained and checked on, and its place."""
    asked = f" of {summary.asked_vocab_size:,} asked for" if summary.vocab_size < summary.asked_vocab_size else ""
    checked = summary.checked
    rows = {
        "style": summary.style,
        "documents": f"{summary.corpus.documents:,}",
        "text": f"{summary.corpus.bytes:,} bytes",
        "vocabulary": f"{summary.vocab_size:,}{asked}",
        "merges": f"{summary.merges:,}",
        "round trip": f"complete: {checked.what}, {checked.text.documents:,} documents, {checked.text.bytes:,} bytes",
        "bytes per token": f"{checked.text.bytes / checked.tokens:.3f}",
        "seconds": f"{summary.seconds:.1f}",
        "tokenizer": storage.join(summary.output, TOKENIZER),
    }
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, escape(value))
    console.print(table)
    if summary.skipped:
        console.print(f"{summary.skipped:,} rows were left out; the manifest has the reasons.")
    if summary.long_words:
        share = summary.long_word_bytes / max(1, summary.corpus.bytes)
        console.print(
            f"{summary.long_words:,} words of more than {MOST_BYTES:,} bytes were not trained on: "
            f"{format_share(share)} of the text."
        )


def training_as_json(summary: TrainingSummary) -> dict[str, object]:
    """The same for machines."""
    checked = summary.checked
    return {
        "tokenizer": storage.join(summary.output, TOKENIZER),
        "style": summary.style,
        "documents": summary.corpus.documents,
        "bytes": summary.corpus.bytes,
        "vocab_size": summary.vocab_size,
        "asked_vocab_size": summary.asked_vocab_size,
        "merges": summary.merges,
        "checked_documents": checked.text.documents,
        "checked_bytes": checked.text.bytes,
        "bytes_per_token": checked.text.bytes / checked.tokens,
        "rows_left_out": summary.skipped,
        "long_words": summary.long_words,
        "long_word_bytes": summary.long_word_bytes,
        "seconds": summary.seconds,
    }


def print_evaluation(console: Console, evaluation: Evaluation, output_format: OutputFormat) -> None:
    """Prints all results: as a table for each group, where * marks the best value of a column; as JSON; or as CSV."""
    if output_format == "table":
        _print_tables(console, evaluation)
    elif output_format == "json":
        print_json(console, evaluation.to_dict())
    else:
        print_rows(console, evaluation.to_dict()["results"], output_format)


def _print_tables(console: Console, evaluation: Evaluation) -> None:
    for group in evaluation.shown_groups:
        text = evaluation.statistics[evaluation.tokenizers[0].name, group]
        title = f"{group}: {text.documents:,} documents, {text.words:,} words, {text.text_bytes:,} bytes"
        for table in _group_tables(console, evaluation, group, title):
            console.print(table)
    engines = ", ".join(f"{one.name} by {one.engine}" for one in evaluation.tokenizers)
    terminal.print_as_is(
        console,
        "* the best of its column. MB/s of processor time compare within one run only; encoded were " + engines,
    )
    for name, reason in evaluation.left_out.items():
        terminal.print_as_is(console, f"{name} was left out: {reason}")


def _group_tables(console: Console, evaluation: Evaluation, group: str, title: str) -> Iterator[Table]:
    """One table, or as many below each other as the console's width asks for."""
    rows = [evaluation.metrics(one, group) for one in evaluation.tokenizers]
    waiting = list(METRICS)
    while waiting:
        taken = 1
        while taken < len(waiting):
            wider = _table(evaluation, rows, waiting[: taken + 1], title)
            if table_width(console, wider) > console.width:
                break
            taken += 1
        yield _table(evaluation, rows, waiting[:taken], title)
        waiting, title = waiting[taken:], ""


def _table(
    evaluation: Evaluation, rows: Sequence[Mapping[str, float | None]], metrics: Sequence[Metric], title: str
) -> Table:
    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("tokenizer", no_wrap=True)
    best = {}
    for metric in metrics:
        table.add_column(metric.title.replace("/", "\n/").replace(" ", "\n"), justify="right", no_wrap=True)
        best[metric.key] = metric.best(row[metric.key] for row in rows)
    for tokenizer, row in zip(evaluation.tokenizers, rows, strict=True):
        cells = []
        for metric in metrics:
            value = metric.format_value(row[metric.key])
            cells.append(f"[bold green]{value}*[/]" if value == best[metric.key] else f"{value} ")
        table.add_row(escape(tokenizer.name), *cells)
    return table
