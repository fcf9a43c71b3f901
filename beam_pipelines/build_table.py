"""The table of a build."""

from __future__ import annotations

from rich.console import Console

from beam_pipelines.build_mix import BuildSummary
from beam_pipelines.tables import new_table, print_table
from transforms.quantities import format_size


def print_build(console: Console, summary: BuildSummary, output: str) -> None:
    """Wanted and written tokens of each split, and where it all is."""
    columns = ("dataset", "split", "wanted", "written", "share", "documents", "records", "shards", "size")
    table = new_table(columns, texts=2)
    manifests = summary.manifests
    train = sum(manifest.splits["train"].tokens for manifest in manifests.values())
    tokens = size = 0
    for manifest in manifests.values():
        for name, split in manifest.splits.items():
            tokens, size = tokens + split.tokens, size + split.bytes
            missing = f" ({split.missing:,} missing)" if split.missing else ""
            share = f"{100 * split.tokens / train:.2f} %" if name == "train" and train else ""
            numbers = (split.documents, split.records, len(split.shards))
            table.add_row(
                manifest.dataset,
                name,
                f"{split.budget:,}",
                f"{split.tokens:,}{missing}",
                share,
                *(f"{number:,}" for number in numbers),
                format_size(split.bytes),
            )
    wanted = sum(split.budget for manifest in manifests.values() for split in manifest.splits.values())
    table.add_section()
    table.add_row("all", "", f"{wanted:,}", f"{tokens:,}", "", "", "", "", format_size(size), style="bold")
    print_table(console, table, ("documents", "records", "share", "size", "shards"))
    skipped = sum(sum(manifest.skipped.values()) for manifest in manifests.values())
    if skipped:
        where = "; those in quarantine lie in _quarantine" if any(m.quarantine for m in manifests.values()) else ""
        console.print(f"{skipped:,} rows held no text and were left out; each manifest has the reasons{where}.")
    made = [split for folder in summary.built for split in manifests[folder].splits.values()]
    tokens, size = sum(split.tokens for split in made), sum(split.bytes for split in made)
    speed = f"{tokens / summary.seconds / 1e6:.2f} Mtok/s, {size / summary.seconds / 1e6:.1f} MB/s"
    before = len(manifests) - len(summary.built)
    kept = f"; {before} of {len(manifests)} datasets were there already" if before else ""
    console.print(
        f"{tokens:,} tokens in {summary.seconds:.1f} s ({speed}){kept}; all in {output}",
        soft_wrap=True,
        markup=False,
        emoji=False,
    )
