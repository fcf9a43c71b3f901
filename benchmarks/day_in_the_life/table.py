"""The table of a day, for a terminal and for the documentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from benchmarks.day_in_the_life.meter import HostUse, Use
from benchmarks.harness.measure import Measurement
from benchmarks.harness.report import machine_line, markdown_table, rich_table, versions_line

HEADINGS = (
    "command",
    "seconds",
    "CPU s, command's host / workers'",
    "CPU s, bucket",
    "received, MB",
    "sent, MB",
    "peak RSS, GiB",
    "scratch, GiB",
)


@dataclass(frozen=True)
class Command:
    """A command on the cluster, by its name, and the resources that it has used."""

    name: str
    use: Use


@dataclass(frozen=True)
class Day:
    """The corpora and sizes of a day, and the resources that its commands took.

    Attributes:
        tokens: of the mix, without the held-out ones.
        vocabulary_tokens: of the corpus that the tokenizer was trained on.
        date: of the end.
        machine, versions: as the other benchmarks have them.
        processes: worker processes of a host.
        source_files, source_bytes: in the bucket.
        output_files, output_bytes, shards: of the mix, in the bucket.
        commands: in their order.
        local: the same build without the cluster.
        differing: names of files that are not the same in both builds.
    """

    tokens: int
    vocabulary_tokens: int
    date: str
    machine: dict[str, Any]
    versions: dict[str, str]
    processes: int
    source_files: int
    source_bytes: int
    output_files: int
    output_bytes: int
    shards: int
    commands: Sequence[Command]
    local: Measurement
    differing: Sequence[str]


def cells(command: Command) -> list[str]:
    """The cells of a command under `HEADINGS`: first the host of the command, then each with workers."""

    def each(value: Callable[[HostUse], float], form: str) -> str:
        return " / ".join(format(value(host), form) for host in command.use.hosts)

    return [
        command.name,
        f"{command.use.seconds:.0f}",
        each(lambda host: host.cpu_seconds, ".0f"),
        f"{command.use.bucket_cpu_seconds:.0f}",
        each(lambda host: host.received_bytes / 1e6, ",.0f"),
        each(lambda host: host.sent_bytes / 1e6, ",.0f"),
        each(lambda host: host.peak_rss_bytes / 2**30, ".2f"),
        each(lambda host: host.peak_scratch_bytes / 2**30, ".2f"),
    ]


def _local_cells(local: Measurement) -> list[str]:
    return [
        "build, without a cluster",
        f"{local.wall_seconds:.0f}",
        f"{local.cpu_seconds:.0f}",
        *("", "", ""),
        f"{local.peak_rss_bytes / 2**30:.2f}",
        "",
    ]


def _rows(day: Day) -> list[list[str]]:
    return [*(cells(command) for command in day.commands), _local_cells(day.local)]


def verdict(day: Day) -> str:
    """Whether the bytes are the same, as a sentence."""
    if day.differing:
        return f"{len(day.differing)} files are not the same, the first {day.differing[0]}."
    return f"All {day.output_files} files are those of the build without a cluster, byte for byte."


def summary(day: Day) -> str:
    """The sizes of the source and of the builds, in sentences."""
    workers = len(day.commands[0].use.hosts) - 1
    return (
        f"{day.tokens:,} tokens in {day.shards} shards, {day.output_bytes / 1e9:.2f} GB, from {day.source_files} files "
        f"of {day.source_bytes / 1e9:.2f} GB; vocabulary corpus of {day.vocabulary_tokens:,} tokens; {workers} "
        f"host{'s' * (workers > 1)} with {day.processes} worker{'s' * (day.processes > 1)} each. {verdict(day)}"
    )


def show(day: Day, console: Console) -> None:
    """Prints it."""
    console.print(rich_table("A day in the life", HEADINGS, _rows(day)))
    console.print(summary(day))
    console.print(f"{machine_line(day.date, day.machine)} {versions_line(day.versions)}")


def markdown(day: Day) -> str:
    """The same for the documentation."""
    about = f"{machine_line(day.date, day.machine)} {versions_line(day.versions)}"
    return "\n".join([about, "", summary(day), "", *markdown_table(HEADINGS, _rows(day))]) + "\n"
