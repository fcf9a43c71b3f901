"""The tables of sources: the plan of a build with its notes and cost, and counts of tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from rich.console import Console

from beam_pipelines.console.layout import OutputFormat, cell, new_table, print_rows, print_table
from beam_pipelines.console.terminal import print_as_is
from beam_pipelines.jobs.dry_run import DryRun
from beam_pipelines.jobs.plan import DatasetOutlook
from beam_pipelines.runners.dataflow_cost import PRICES_OF, dataflow_cost
from beam_pipelines.runners.local import build_memory, worthwhile_processes
from transforms.counting.text_count import TextCount
from transforms.files import storage
from transforms.quantities import format_estimate, format_share, format_short, format_size

_SHARE_TOLD = 0.01
# Below it, shards come out so much smaller than they are asked for that another size is worth a word.
_KEPT_SHARE_OF_SMALL_SHARDS = 0.5


def print_plan(
    console: Console, outlooks: Sequence[DatasetOutlook], output_format: OutputFormat, *, in_bucket: bool = True
) -> None:
    """Prints the reads and writes of a build, with the cost of a bucket where the output may be in one."""
    if output_format != "table":
        print_rows(console, [dataclasses.asdict(outlook) for outlook in outlooks], output_format)
        return
    columns = (
        "dataset", "engine", "wanted tokens", "source holds", "files", "row groups", "to read ≈", "shards ≈",
        "records/shard ≈", "to write ≈", "one process ≈",
    )  # fmt: skip
    table = new_table(columns, texts=2)
    for outlook in outlooks:
        short = outlook.available < outlook.need
        table.add_row(
            outlook.dataset,
            outlook.engine,
            f"{outlook.need:,}",
            f"{'[red]' if short else ''}{format_estimate(outlook.available, outlook.available_error)}",
            f"{outlook.files_read} of {outlook.files}",
            f"{outlook.row_groups:,}",
            format_size(outlook.read_bytes),
            f"{outlook.shards:,}",
            f"{outlook.records_per_shard:,}",
            format_size(outlook.written_bytes),
            _duration(outlook.seconds),
        )
    print_table(
        console, table, ("engine", "records/shard ≈", "row groups", "shards ≈", "to write ≈", "files", "one process ≈")
    )
    for outlook in outlooks:
        if outlook.reference_share >= _SHARE_TOLD:
            console.print(
                f"{outlook.dataset}: {format_share(outlook.reference_share)} of its text is encoded by tokenizers, "
                "which is slower, since it stands around characters or added tokens on which gigatoken may differ."
            )
        if outlook.engine == "gigatoken" and outlook.uncut_share >= _SHARE_TOLD:
            console.print(
                f"{outlook.dataset}: {format_share(outlook.uncut_share)} of its text cannot be cut within 64 KiB, "
                "since no letter or digit, space, and letter or digit stand in a row: around a character on which "
                "gigatoken may differ, more of it is encoded by tokenizers, up to the whole document."
            )
        if outlook.kept_share is not None and outlook.kept_share < 1:
            print_as_is(console, _filter_note(outlook, outlook.kept_share))
        if outlook.crowded_row_groups:
            console.print(
                f"{outlook.dataset}: row groups of more records than shards.max_records are shards of their own, "
                f"{outlook.crowded_row_groups:,} here, the largest of about {outlook.most_records:,} records; a read "
                "at random takes longer there: write the source in smaller row groups, or raise shards.max_records."
            )
    if pairs := [outlook for outlook in outlooks if outlook.id_bytes]:
        console.print(_id_note(pairs))
    if index := sum(outlook.index_bytes for outlook in outlooks):
        console.print(
            f"A training that reads all of it holds an index of about {format_size(index)} in each worker process of "
            f"Grain's, and has about {sum(outlook.shards for outlook in outlooks):,} shards open there."
        )
    console.print(_local_note(outlooks))
    if in_bucket:
        _print_bucket(console, outlooks)
    cost = dataflow_cost(sum(outlook.seconds for outlook in outlooks))
    if cost.processor_hours >= 0.1:
        console.print(
            f"On Dataflow: about {cost.processor_hours:,.1f} processor hours, ${cost.dollars:,.2f} at the list prices "
            f"of {PRICES_OF} in us-central1, without the start-up of workers; see docs/dataflow.md."
        )
    for outlook in outlooks:
        if (what := _shortfall(outlook)) is not None:
            console.print(what)


def _print_bucket(console: Console, outlooks: Sequence[DatasetOutlook]) -> None:
    scratch = max(outlook.scratch_bytes for outlook in outlooks)
    console.print(f"With the output in a bucket, each process takes up to {format_size(scratch)} of local disk.")
    console.print(
        "A bucket with soft delete, which is on unless somebody has turned it off, bills what a build renames and "
        "deletes "
        f"there, some {format_size(sum(outlook.written_bytes for outlook in outlooks))}, for seven more days; this "
        f"turns "
        "it off: gcloud storage buckets update gs://BUCKET --clear-soft-delete",
        soft_wrap=True,
    )


def _local_note(outlooks: Sequence[DatasetOutlook]) -> str:
    """The time, disk and memory that all of it takes on this machine."""
    seconds = sum(outlook.seconds for outlook in outlooks)
    processes = worthwhile_processes(seconds)
    written = sum(outlook.written_bytes for outlook in outlooks)
    # Of each dataset, a shard at a cut lies there twice until it is published.
    disk = written + sum(outlook.scratch_bytes // 2 for outlook in outlooks)
    return (
        f"On this machine: about {_duration(seconds / processes)} in {processes} "
        f"process{'' if processes == 1 else 'es'}, {format_size(disk)} of disk at the output, and "
        f"{format_size(build_memory(processes))} of memory."
    )


def _id_note(outlooks: Sequence[DatasetOutlook]) -> str:
    """The effect of the vocabulary's size on that of files in Megatron's format."""
    total = format_size(sum(outlook.written_bytes for outlook in outlooks))
    if outlooks[0].id_bytes == 2:
        return f"In Megatron's format an id takes 2 bytes with this vocabulary: {total} in all."
    saved = sum(min(outlook.need, outlook.available) * 2 for outlook in outlooks)
    return (
        f"In Megatron's format an id takes 4 bytes with this vocabulary: {total} in all; with fewer than 65,500 ids, "
        f"added tokens included, it would take 2, which saves {format_size(saved)}."
    )


def _shortfall(outlook: DatasetOutlook) -> str | None:
    """The note on a source that holds less than its budget, or perhaps does: its lack, or how often to read it."""
    missing, error = outlook.need - outlook.available, outlook.available_error
    if missing + error <= 0:
        return None
    name, sure = outlook.dataset, missing > error
    if outlook.max_repeats > 1 and outlook.most_passes is not None and outlook.most_passes <= outlook.max_repeats:
        return (
            f"{name} {'will be' if sure else 'may be'} written once, for a training to read {_passes(outlook)} times."
        )
    lacks = (
        f"[red]{name} will lack {format_estimate(missing, error)} tokens;[/] "
        if sure
        else f"[yellow]{name}: its budget lies within the margin of error: it may fall short by up to "
        f"{format_short(missing + error)} tokens;[/] "
    )
    remedies = "add source files or lower its budget"
    if not sure:
        remedies = "add source files, lower its budget, or count the source (broetchen count --ledger)"
    if outlook.passes is None:
        return lacks + remedies
    if outlook.max_repeats > 1:
        return (
            f"{lacks}to read it {_passes(outlook)} times is what it takes, and max_repeats allows "
            f"{outlook.max_repeats:g}: {remedies}"
        )
    return f"{lacks}{remedies}; or let a training read it {_passes(outlook)} times (max_repeats)"


def _passes(outlook: DatasetOutlook) -> str:
    assert outlook.passes is not None
    if not outlook.available_error:
        return f"{outlook.passes:.2f}"
    if outlook.most_passes is None:
        return f"{outlook.passes:.2f} or more"
    return f"{outlook.passes:.2f} (at most {outlook.most_passes:.2f})"


def _filter_note(outlook: DatasetOutlook, kept_share: float) -> str:
    size = round(kept_share * outlook.target_size)
    note = (
        f"{outlook.dataset}: about {format_share(kept_share)} of its text passes the filter, so that its shards come "
        f"to some {format_size(size)} each"
    )
    if 0 < kept_share < _KEPT_SHARE_OF_SMALL_SHARDS:
        wanted = round(outlook.target_size / kept_share)
        note += f"; shards.target_size={format_size(wanted).replace(' ', '')} makes them as large as you ask for"
    return f"{note}."


def print_dry_run(console: Console, found: DryRun, output: str) -> None:
    """Prints the plan of a build, and that nothing is done."""
    print_plan(console, found.outlooks, "table", in_bucket=not storage.is_local(output))
    for name in found.finished:
        print_as_is(console, f"{name} is finished there already, and would stay as it is.")
    for name, reason in found.replaced.items():
        print_as_is(console, f"{name} would be replaced: {reason}")
    for name, shards in found.taken_over.items():
        print_as_is(console, f"{name}: {shards:,} shards of the old dataset can be taken over as they are.")
    print_as_is(console, f"All checks have passed. Nothing was built, and nothing written to {output}: --dry-run.")


def dry_run_as_json(found: DryRun, output: str) -> dict[str, object]:
    """The same for machines."""
    return {
        "output": output,
        "plan": [dataclasses.asdict(outlook) for outlook in found.outlooks],
        "finished": list(found.finished),
        "replaced": dict(found.replaced),
        "taken_over": dict(found.taken_over),
    }


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def print_counts(console: Console, counts: Mapping[str, TextCount], output_format: OutputFormat) -> None:
    """Subtokens of each dataset and of all; an unknown number is a dash, null, or nothing in CSV."""
    total = TextCount.sum(counts.values())
    rows = [_count_row(name, count) for name, count in [*counts.items(), ("all", total)]]
    if output_format != "table":
        print_rows(console, rows, output_format)
        return
    columns = (
        "dataset", "subtokens", "documents", "bytes", "bytes/token", "tokens/document", "median", "p99",
        "rows left out", "filtered",
    )  # fmt: skip
    table = new_table(columns)
    for index, row in enumerate(rows):
        values = (
            f"{value:,}" if isinstance(value, int) else "–" if value is None else f"{value:,.2f}"
            for value in list(row.values())[1:]
        )
        table.add_row(cell(str(row["dataset"])), *values, style="bold" if index == len(counts) else None)
    print_table(console, table, ("filtered", "rows left out", "p99", "median", "bytes", "documents", "bytes/token"))


def _count_row(name: str, count: TextCount) -> dict[str, str | int | float | None]:
    return {
        "dataset": name,
        "subtokens": count.tokens,
        "documents": count.documents,
        "bytes": count.text_bytes,
        "bytes_per_token": count.bytes_per_token,
        "tokens_per_document": count.mean,
        "median_tokens_per_document": count.median,
        "p99_tokens_per_document": count.p99,
        "rows_left_out": count.skipped,
        "rows_filtered": count.filtered,
    }
