"""The table of a trained tokenizer."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from beam_pipelines.tokenizer_folder import TOKENIZER
from beam_pipelines.train_tokenizer import TrainingSummary
from transforms import files


def print_training(console: Console, summary: TrainingSummary) -> None:
    """What it was trained and checked on, and where it is."""
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
        "tokenizer": files.join(summary.output, TOKENIZER),
    }
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, escape(value))
    console.print(table)
    if summary.skipped:
        console.print(f"{summary.skipped:,} rows held no text and were left out; the manifest has the reasons.")
