"""The results: measurements, their medians and ratios, and tables of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from benchmarks.harness.contenders import CONTENDERS, COUNTERS
from benchmarks.harness.measure import Measurement

GIB = 1 << 30
TITLES = {one.name: one.title for one in (*CONTENDERS, *COUNTERS)}


@dataclass(frozen=True)
class Run:
    """One run of one contender.

    Attributes:
        contender: its name, or that of a counter.
        corpus_mb: text of the corpus in 10^6 bytes.
        tokens: ids written, EOS included; of a counter: counted, without.
        text_bytes: UTF-8 bytes of the documents that the ids come from (for a budget within the corpus: its share).
        needed_bytes: stored bytes of the text column's chunks that hold those documents.
        output_bytes: size of the output folder.
        measurement: of the process tree.
    """

    contender: str
    corpus_mb: int
    tokens: int
    text_bytes: int
    needed_bytes: int
    output_bytes: int
    measurement: Measurement


@dataclass(frozen=True)
class Row:
    """A contender on a corpus: medians of its runs, but the largest of the memory peaks.

    ``start_seconds`` is the time of a corpus of 1 MB, which is nearly all start-up. ``steady_tokens_per_second`` leaves
    out that time and that corpus' tokens; None for a run of less than twice that time: the difference would be noise.

    ``read_ratio`` is the bytes fetched from disk over the bytes needed; None where less was fetched than is needed, as
    the page cache could not be emptied then (on a file system in memory, say) and disk reads tell nothing.
    """

    contender: str
    corpus_mb: int
    runs: int
    tokens: int
    seconds: float
    start_seconds: float
    fastest_seconds: float
    slowest_seconds: float
    tokens_per_second: float
    steady_tokens_per_second: float | None
    text_mb_per_second: float
    cpu_seconds: float
    tokens_per_cpu_second: float
    peak_pss_bytes: int
    peak_rss_bytes: int
    disk_read_bytes: int
    needed_bytes: int
    read_ratio: float | None
    output_bytes: int

    @property
    def shown_seconds(self) -> str:
        """The median, and the span of several runs."""
        span = f" ({self.fastest_seconds:.1f}-{self.slowest_seconds:.1f})" if self.runs > 1 else ""
        return f"{self.seconds:.1f}{span}"


@dataclass(frozen=True)
class Target:
    """A figure beside the one that is wanted."""

    what: str
    value: float
    limit: float
    at_least: bool
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure is within the limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True)
class Results:
    """Everything that one call of the benchmark found out."""

    date: str
    machine: dict[str, Any]
    versions: dict[str, str]
    setting: dict[str, Any]
    corpora: list[dict[str, Any]]
    start_runs: list[Run]
    runs: list[Run]
    scaling_runs: list[Run] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The results, medians and targets as plain values."""
        targets = [{**asdict(target), "met": target.met} for target in self.targets()]
        rows = [asdict(row) for row in [*self.rows(), *self.scaling_rows()]]
        return {**asdict(self), "rows": rows, "targets": targets}

    def rows(self) -> list[Row]:
        """The comparison, one row for each contender."""
        return summarize(self.runs, self.start_runs)

    def scaling_rows(self) -> list[Row]:
        """The scaling runs, one row for each corpus and contender."""
        return summarize(self.scaling_runs, self.start_runs)

    def targets(self) -> list[Target]:
        """The ratios and peaks for which there is a target, as far as the runs allow them."""
        rows = {row.contender: row for row in self.rows()}
        targets = []
        if "build" in rows:
            build = rows["build"]
            for peer, limit in (("datatrove", 10.0), ("loop", 0.8)):
                if peer in rows:
                    ratio = build.tokens_per_second / rows[peer].tokens_per_second
                    targets.append(Target(f"build ÷ {TITLES[peer]}, tokens/s", ratio, limit, at_least=True, unit="×"))
            targets.append(_peak_target(build))
        small_and_large = [row for row in self.scaling_rows() if row.contender == "build"]
        if len(small_and_large) == 2:
            small, large = small_and_large
            factor = large.corpus_mb / small.corpus_mb
            what = f"build, time for {factor:g}× the corpus"
            targets.append(Target(what, large.seconds / small.seconds, 1.05 * factor, at_least=False, unit="×"))
            if small.steady_tokens_per_second is not None and large.steady_tokens_per_second is not None:
                ratio = (large.seconds - large.start_seconds) / (small.seconds - small.start_seconds)
                targets.append(Target(f"{what}, start-up left out", ratio, 1.05 * factor, at_least=False, unit="×"))
            targets += [_peak_target(small), _peak_target(large)]
        return targets


def _peak_target(row: Row) -> Target:
    what = f"build, peak RSS of the process tree, {row.corpus_mb} MB of text"
    return Target(what, row.peak_rss_bytes / GIB, 1.5, at_least=False, unit=" GiB")


def summarize(runs: Sequence[Run], start_runs: Sequence[Run]) -> list[Row]:
    """One row for each corpus and contender, in the order in which they first ran."""
    starts = {run.contender: run for run in start_runs}
    groups: dict[tuple[int, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.corpus_mb, run.contender), []).append(run)
    return [_row(group, starts[contender]) for (_, contender), group in groups.items()]


def _row(runs: Sequence[Run], start: Run) -> Row:
    def median(value: Callable[[Run], float]) -> float:
        return statistics.median(value(run) for run in runs)

    first = runs[0]
    start_seconds = start.measurement.wall_seconds
    seconds = median(lambda run: run.measurement.wall_seconds)
    cpu_seconds = median(lambda run: run.measurement.cpu_seconds)
    disk_read = round(median(lambda run: run.measurement.disk_read_bytes))
    return Row(
        contender=first.contender,
        corpus_mb=first.corpus_mb,
        runs=len(runs),
        tokens=first.tokens,
        seconds=seconds,
        start_seconds=start_seconds,
        fastest_seconds=min(run.measurement.wall_seconds for run in runs),
        slowest_seconds=max(run.measurement.wall_seconds for run in runs),
        tokens_per_second=first.tokens / seconds,
        steady_tokens_per_second=(first.tokens - start.tokens) / (seconds - start_seconds)
        if seconds >= 2 * start_seconds
        else None,
        text_mb_per_second=first.text_bytes / 1e6 / seconds,
        cpu_seconds=cpu_seconds,
        tokens_per_cpu_second=first.tokens / cpu_seconds,
        peak_pss_bytes=max(run.measurement.peak_pss_bytes for run in runs),
        peak_rss_bytes=max(run.measurement.peak_rss_bytes for run in runs),
        disk_read_bytes=disk_read,
        needed_bytes=first.needed_bytes,
        read_ratio=disk_read / first.needed_bytes if disk_read >= first.needed_bytes else None,
        output_bytes=first.output_bytes,
    )


HEADINGS = (
    "contender",
    "text",
    "tokens written",
    "seconds",
    "Mtok/s",
    "Mtok/s, start-up left out",
    "MB/s of text",
    "CPU s",
    "Mtok per CPU s",
    "peak PSS / RSS, GiB",
    "disk read ÷ needed",
)


def _cells(row: Row) -> list[str]:
    return [
        TITLES[row.contender],
        f"{row.corpus_mb} MB",
        f"{row.tokens:,}",
        row.shown_seconds,
        f"{row.tokens_per_second / 1e6:.2f}",
        "too short" if row.steady_tokens_per_second is None else f"{row.steady_tokens_per_second / 1e6:.2f}",
        f"{row.text_mb_per_second:.1f}",
        f"{row.cpu_seconds:.1f}",
        f"{row.tokens_per_cpu_second / 1e6:.2f}",
        f"{row.peak_pss_bytes / GIB:.2f} / {row.peak_rss_bytes / GIB:.2f}",
        "not measured" if row.read_ratio is None else f"{row.read_ratio:.2f}",
    ]


RATIO_HEADINGS = ("build ÷", "tokens/s", "start-up left out", "tokens per CPU second")


def _ratio_rows(rows: Sequence[Row]) -> list[list[str]]:
    """How many times each other contender's figures ``build`` reaches."""
    build = next((row for row in rows if row.contender == "build"), None)
    if build is None:
        return []

    def ratio(ours: float | None, theirs: float | None) -> str:
        return "too short" if ours is None or theirs is None else f"{ours / theirs:.2f}"

    return [
        [
            TITLES[row.contender],
            ratio(build.tokens_per_second, row.tokens_per_second),
            ratio(build.steady_tokens_per_second, row.steady_tokens_per_second),
            ratio(build.tokens_per_cpu_second, row.tokens_per_cpu_second),
        ]
        for row in rows
        if row is not build
    ]


TARGET_HEADINGS = ("figure", "found", "wanted", "")


def target_cells(target: Target) -> list[str]:
    """The cells of a table with `TARGET_HEADINGS`."""
    sign = "≥" if target.at_least else "≤"
    value, limit = f"{target.value:.2f}{target.unit}", f"{sign} {target.limit:g}{target.unit}"
    return [target.what, value, limit, "met" if target.met else "missed"]


def rich_tables(results: Results) -> list[Table]:
    """The results as tables for a terminal."""
    tables = []
    for title, rows in (("Side by side", results.rows()), ("Scaling", results.scaling_rows())):
        if rows:
            tables.append(rich_table(title, HEADINGS, [_cells(row) for row in rows]))
    if ratios := _ratio_rows(results.rows()):
        tables.append(rich_table("Ratios", RATIO_HEADINGS, ratios))
    if targets := results.targets():
        tables.append(targets_table(targets))
    return tables


def rich_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> Table:
    """A table for a terminal; the first `texts` columns begin at the left, and the others end at the right."""
    table = Table(title=title)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < texts else "right")
    for cells in rows:
        table.add_row(*cells)
    return table


def targets_table(targets: Sequence[Target]) -> Table:
    """The targets and the figures that were measured, for a terminal."""
    table = Table(*TARGET_HEADINGS, title="Targets")
    for target in targets:
        table.add_row(*target_cells(target), style=None if target.met else "bold red")
    return table


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> list[str]:
    """The lines of a table in markdown; the first `texts` columns begin at the left."""
    aligned = ["---"] * texts + ["---:"] * (len(headings) - texts)
    return [f"| {' | '.join(line)} |" for line in [headings, aligned, *rows]]


def machine_line(date: str, machine: dict[str, Any]) -> str:
    """The day and the machine of the measurements, as a sentence."""
    return (
        f"{date}, {machine['cpu']}, {machine['cpus']} cores, {machine['memory_gib']:.0f} GiB, "
        f"{machine['system']}, Python {machine['python']}; load average before the first run "
        f"{machine['load_before']:.2f}."
    )


def versions_line(versions: dict[str, str]) -> str:
    """The versions of the libraries, as a sentence."""
    return f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}."


def start_line(start_runs: Sequence[Run]) -> str:
    """The seconds that each contender takes to start, as a sentence."""
    starts = "; ".join(f"{TITLES[run.contender]} {run.measurement.wall_seconds:.1f}" for run in start_runs)
    return f"Seconds for a corpus of {start_runs[0].corpus_mb} MB, which is nearly all start-up: {starts}."


def markdown(results: Results) -> str:
    """The results for the documentation, with all that is needed to run them again."""
    setting = results.setting
    corpora = "; ".join(
        f"{corpus['text_mb']} MB of text, {corpus['documents']:,} documents, {corpus['files']} files, "
        f"{corpus['row_groups']} row groups, {corpus['file_bytes'] / 1e6:.0f} MB of parquet"
        for corpus in results.corpora
    )
    options = f"`{' '.join(setting['build_options'])}`" if setting["build_options"] else "no option of Beam's"
    lines = [
        machine_line(results.date, results.machine),
        "",
        f"Corpora, {setting['texts']} texts: {corpora}. Tokenizer: {setting['tokenizer']}. "
        f"Budget of `build`: {setting['budget_share']:.0%} of the tokens. "
        f"{setting['workers']} workers, records of at most {setting['max_tokens']} ids, "
        f"shards of {setting['shard_size']}, `build` with {options}. {setting['repeat']} "
        f"run{'s, medians' if setting['repeat'] > 1 else ''}. {versions_line(results.versions)}",
        "",
        start_line(results.start_runs),
        "",
    ]
    for rows in (results.rows(), results.scaling_rows()):
        if rows:
            lines += [*markdown_table(HEADINGS, [_cells(row) for row in rows]), ""]
    if ratios := _ratio_rows(results.rows()):
        lines += [*markdown_table(RATIO_HEADINGS, ratios), ""]
    if targets := results.targets():
        lines += markdown_table(TARGET_HEADINGS, [target_cells(target) for target in targets])
    return "\n".join(lines).rstrip() + "\n"
