"""Runs contenders and counters on corpora, checks that they did the same work, and removes their outputs."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.harness import same_work
from benchmarks.harness.contenders import BUILD, Contender, Counter, Setting
from benchmarks.harness.corpus import Corpus
from benchmarks.harness.measure import ContenderFailed, Measurement, measure_apart
from benchmarks.harness.report import Run
from benchmarks.harness.same_work import Reference, WrongWork
from transforms.errors import BroetchenError


class Bench:
    """Runs contenders on corpora with one setting.

    Args:
        setting: shared by all contenders.
        budget_share: ``build``'s budget, of a corpus' tokens.
        cache: folder to run in.
        console: for progress.
        keep: whether to keep what the last run of each contender wrote.
    """

    def __init__(
        self, setting: Setting, budget_share: float, cache: Path, console: Console, *, keep: bool = False
    ) -> None:
        self._setting = setting
        self._budget_share = budget_share
        self._runs = cache / "runs"
        self._console = console
        self._keep = keep
        self._references: dict[Path, Reference] = {}

    def run(self, contender: Contender, corpus: Corpus, corpus_mb: int) -> Run:
        """One run of one contender; the first on a corpus is the reference for the others.

        Raises:
            ContenderFailed: it ended with an error.
            WrongWork: it wrote something else than the first.
        """
        folder = self._folder(contender.name)
        output, stats = folder / "output", folder / "stats.json"
        reference = self._references.get(corpus.directory)
        measurement = self._measure_contender(contender, corpus, corpus_mb, reference.budget if reference else 0)
        with self._console.status(f"{contender.title}, {corpus_mb} MB: reading it back"):
            if reference is None:
                assert contender.row_group_tokens is not None, f"{contender.name} cannot be the first"
                counts = contender.row_group_tokens(output, stats, corpus)
                reference = same_work.make_reference(
                    contender.read(output), counts, corpus.row_groups(), self._budget_share
                )
                self._references[corpus.directory] = reference
                work = reference.work
            else:
                work = same_work.read_work(contender.read(output))
            stated = json.loads(stats.read_text())["tokens"] if stats.exists() else None
            same_work.check(contender.name, work, stated, reference)
        run = Run(
            contender=contender.name,
            corpus_mb=corpus_mb,
            tokens=work.tokens,
            text_bytes=round(corpus.text_bytes * work.tokens / reference.work.tokens),
            needed_bytes=reference.budget_needed_bytes if contender is BUILD else reference.needed_bytes,
            output_bytes=_size(output),
            measurement=measurement,
        )
        self._finish(contender.title, run, "tokens", "same work")
        return run

    def run_build(self, corpus: Corpus, corpus_mb: int, total_tokens: int) -> Run:
        """One run of ``build`` on a corpus that no other contender has tokenized: how many ids it wrote is checked.

        Args:
            corpus: the corpus.
            corpus_mb: its text in 10^6 bytes.
            total_tokens: of the corpus, EOS included.

        Raises:
            ContenderFailed: it ended with an error.
            WrongWork: it wrote another number of ids than its budget.
        """
        budget = max(1, int(total_tokens * self._budget_share))
        output = self._folder(BUILD.name) / "output"
        measurement = self._measure_contender(BUILD, corpus, corpus_mb, budget)
        with self._console.status(f"{BUILD.title}, {corpus_mb} MB: reading it back"):
            written = sum(len(ids) for ids, _ in BUILD.read(output))
        if written != budget:
            raise WrongWork(f"{BUILD.name}: wrote {written} tokens instead of {budget}")
        share = budget / total_tokens
        run = Run(
            contender=BUILD.name,
            corpus_mb=corpus_mb,
            tokens=budget,
            text_bytes=round(corpus.text_bytes * share),
            needed_bytes=round(sum(size for _, _, size in corpus.row_groups()) * share),
            output_bytes=_size(output),
            measurement=measurement,
        )
        self._finish(BUILD.title, run, "tokens", "as many as it should")
        return run

    def count(self, counter: Counter, corpus: Corpus, corpus_mb: int) -> Run:
        """One run of one counter.

        Raises:
            ContenderFailed: it ended with an error.
            WrongWork: it left documents out.
        """
        folder = self._folder(counter.name)
        stats = folder / "stats.json"
        command = counter.command(self._setting, corpus, folder, stats)
        measurement = self._measure(counter, command, folder, corpus, corpus_mb)
        tokens, documents = counter.read(json.loads(stats.read_text()))
        if documents != corpus.documents:
            raise WrongWork(f"{counter.name}: counted {documents} of {corpus.documents} documents")
        needed = sum(size for _, _, size in corpus.row_groups())
        run = Run(counter.name, corpus_mb, tokens, corpus.text_bytes, needed, 0, measurement)
        self._finish(counter.title, run, "tokens counted", "all documents")
        return run

    def _folder(self, name: str) -> Path:
        return self._runs / name

    def _measure_contender(self, contender: Contender, corpus: Corpus, corpus_mb: int, budget: int) -> Measurement:
        folder = self._folder(contender.name)
        command = contender.command(self._setting, corpus, folder / "output", folder / "stats.json", budget)
        return self._measure(contender, command, folder, corpus, corpus_mb)

    def _measure(
        self, what: Contender | Counter, command: Sequence[str], folder: Path, corpus: Corpus, corpus_mb: int
    ) -> Measurement:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        corpus.forget_pages()
        with self._console.status(f"{what.title}, {corpus_mb} MB"):
            return measure_apart(command, folder / "log.txt")

    def _finish(self, title: str, run: Run, what: str, checked: str) -> None:
        self._console.print(
            f"{title}, {run.corpus_mb} MB: {run.tokens:,} {what} in {run.measurement.wall_seconds:.1f} s "
            f"(CPU {run.measurement.cpu_seconds:.1f} s), {checked}"
        )
        if not self._keep:
            shutil.rmtree(self._folder(run.contender))


def check_counts(runs: Sequence[Run]) -> None:
    """Holds counts of one corpus against each other.

    Raises:
        WrongWork: they differ.
    """
    for run in runs:
        if run.tokens != runs[0].tokens:
            raise WrongWork(f"{run.contender} counts {run.tokens} tokens, and {runs[0].contender} {runs[0].tokens}")


def run_command(
    parse_arguments: Callable[[], argparse.Namespace], bench: Callable[[argparse.Namespace, Console], None]
) -> int:
    """Runs a benchmark's command; returns 0, 1 if a contender failed or did other work, or 2 where it is not Linux."""
    if sys.platform != "linux":
        print("The benchmark reads the kernel's accounts in /proc, which only Linux has.", file=sys.stderr)
        return 2
    arguments = parse_arguments()
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        bench(arguments, console)
    except (ContenderFailed, WrongWork, FileNotFoundError, RuntimeError, BroetchenError) as error:
        console.print("benchmark failed:", style="bold red")
        console.print(str(error), markup=False, highlight=False)
        return 1
    return 0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
