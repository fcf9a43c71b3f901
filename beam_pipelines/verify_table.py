"""The table of verified datasets."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from beam_pipelines.tables import new_table, print_table
from transforms.manifest import Manifest


def print_verified(console: Console, manifests: Mapping[str, Manifest]) -> None:
    """One line a dataset, all of them sound."""
    table = new_table(("dataset", "tokens", "records", "shards", ""))
    for manifest in manifests.values():
        splits = manifest.splits.values()
        numbers = (
            sum(split.tokens for split in splits),
            sum(split.records for split in splits),
            sum(len(split.shards) for split in splits),
        )
        table.add_row(manifest.dataset, *(f"{number:,}" for number in numbers), "[green]sound")
    print_table(console, table, ("records", "shards"))
