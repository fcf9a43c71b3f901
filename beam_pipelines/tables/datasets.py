"""The tables of datasets: built, verified, unfinished and downloaded ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from rich.console import Console

from beam_pipelines.console import terminal
from beam_pipelines.console.layout import cell, new_table, print_table
from beam_pipelines.jobs.build import BuildSummary
from beam_pipelines.jobs.download import Download, WrongCopy
from beam_pipelines.jobs.verify import Verification
from transforms.dataset.manifest import Manifest
from transforms.errors import listed, one_line
from transforms.quantities import format_share, format_size


def print_build(console: Console, summary: BuildSummary, output: str) -> None:
    """Wanted and written tokens of each split, and where it all is."""
    columns = ("dataset", "split", "wanted", "written", "share", "documents", "records", "shards", "size")
    table = new_table(columns, texts=2)
    manifests = summary.manifests
    train = sum(split.to_read for manifest in manifests.values() if (split := manifest.splits.get("train")))
    tokens = size = 0
    for manifest in manifests.values():
        for name, split in manifest.splits.items():
            tokens, size = tokens + split.tokens, size + split.bytes
            missing = f" ({split.missing:,} missing)" if split.missing else ""
            passes = "" if split.passes is None else f" × {split.passes:.2f}"
            share = format_share(split.to_read / train) if name == "train" and train else ""
            numbers = (split.documents, split.records, len(split.shards))
            table.add_row(
                cell(manifest.dataset),
                cell(name),
                f"{split.budget:,}",
                f"{split.tokens:,}{passes}{missing}",
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
        console.print(f"{skipped:,} rows were left out; each manifest has the reasons{where}.")
    filtered = sum(manifest.filtered for manifest in manifests.values())
    if filtered:
        console.print(f"{filtered:,} rows did not pass the filters.")
    splits = [split for manifest in manifests.values() for split in manifest.splits.values()]
    special = sum(split.documents_with_special_strings or 0 for split in splits)
    if special:
        console.print(
            f"{special:,} documents hold the string of a special token, which a trainer that tokenizes text may take "
            "for the token."
        )
    repeated = [manifest.dataset for manifest in manifests.values() if any(s.passes for s in manifest.splits.values())]
    if repeated:
        terminal.print_as_is(
            console,
            f"{listed(repeated)}: written once, as its source holds no more; × says how often its budget reads it.",
        )
    if not summary.built:
        terminal.print_as_is(console, f"Nothing to do: {_all_of(len(manifests))} complete; all in {output}")
        return
    made = [split for folder in summary.built for split in manifests[folder].splits.values()]
    tokens, size = sum(split.tokens for split in made), sum(split.bytes for split in made)
    # Shards that an earlier run left are no work of this run's.
    own = max(0, tokens - summary.tokens_before)
    size = size * own // max(1, tokens)
    speed = f"{own / summary.seconds / 1e6:.2f} Mtok/s, {size / summary.seconds / 1e6:.1f} MB/s"
    earlier = f", and {tokens - own:,} by an earlier run" if own < tokens else ""
    before = len(manifests) - len(summary.built)
    kept = f"; {before} of {len(manifests)} datasets were there already" if before else ""
    console.print(
        f"{own:,} tokens in {summary.seconds:.1f} s ({speed}){earlier}{kept}; all in {output}",
        soft_wrap=True,
        markup=False,
        emoji=False,
    )


def _all_of(count: int) -> str:
    """All of so many datasets, with a verb.

    >>> [_all_of(count) for count in (1, 2, 5)]
    ['the dataset is', 'both datasets are', 'all 5 datasets are']
    """
    return {1: "the dataset is", 2: "both datasets are"}.get(count, f"all {count:,} datasets are")


def build_as_json(summary: BuildSummary, output: str) -> dict[str, object]:
    """The same for machines: a row for each split."""
    rows = [
        {
            "dataset": manifest.dataset,
            "split": name,
            "folder": folder,
            "built": folder in summary.built,
            "wanted": split.budget,
            "tokens": split.tokens,
            "missing": split.missing,
            "passes": split.passes,
            "documents": split.documents,
            "records": split.records,
            "shards": len(split.shards),
            "bytes": split.bytes,
        }
        for folder, manifest in summary.manifests.items()
        for name, split in manifest.splits.items()
    ]
    return {"output": output, "seconds": summary.seconds, "template": summary.template, "splits": rows}


def verification_as_json(verification: Verification, verdict: str) -> dict[str, object]:
    """The findings of a verification that found no problem, for machines; a problem is an error."""
    rows = [
        {
            "dataset": manifest.dataset,
            "folder": folder,
            "verdict": verdict,
            "tokens": sum(split.tokens for split in manifest.splits.values()),
            "records": sum(split.records for split in manifest.splits.values()),
            "shards": sum(len(split.shards) for split in manifest.splits.values()),
        }
        for folder, manifest in verification.items()
    ]
    return {
        "datasets": [] if verification.template else rows,
        "warnings": verification.warnings,
        "not_checked": verification.unchecked,
        "digest": verification.digest,
        "cannot_find": verification.blind,
        "template": verification.template,
    }


def print_verified(console: Console, manifests: Mapping[str, Manifest], verdict: str = "sound") -> None:
    """One line a dataset, all of them with one verdict."""
    table = new_table(("dataset", "tokens", "records", "shards", ""))
    for manifest in manifests.values():
        splits = manifest.splits.values()
        numbers = (
            sum(split.tokens for split in splits),
            sum(split.records for split in splits),
            sum(len(split.shards) for split in splits),
        )
        table.add_row(cell(manifest.dataset), *(f"{number:,}" for number in numbers), f"[green]{verdict}")
    print_table(console, table, ("records", "shards"))


def print_findings(console: Console, found: Verification) -> None:
    """Prints the other findings of a verification, one a line: warnings, parts not checked, the digest."""
    lines = [
        *(f"warning: {warning}" for warning in found.warnings),
        *(f"not checked: {what}" for what in found.unchecked),
        f"digest of the manifests: {found.digest}",
        f"it cannot find: {'; '.join(found.blind)}",
    ]
    for line in lines:
        terminal.print_as_is(console, one_line(line))


def print_downloads(console: Console, found: Sequence[Download]) -> None:
    """The files that a download would fetch."""
    table = new_table(("source", "to", "size"), texts=2)
    for file in found:
        table.add_row(cell(file.source), cell(file.target), format_size(file.size))
    table.add_section()
    table.add_row(f"{len(found):,} files", "", format_size(sum(file.size for file in found)))
    print_table(console, table, ("to",))


def downloads_as_json(found: Sequence[Download], wrong: Sequence[WrongCopy] = ()) -> list[dict[str, object]]:
    """The files of a download, each with the fault of its copy, if that was looked for and found."""
    problems = {copy.target: copy.problem for copy in wrong}
    return [dataclasses.asdict(file) | {"problem": problems.get(file.target)} for file in found]


def print_wrong_copies(console: Console, wrong: Sequence[WrongCopy]) -> None:
    """The files that a check has found wrong, one a line."""
    for copy in wrong:
        terminal.print_as_is(console, one_line(f"{copy.target}: {copy.problem}"))
