"""``build`` and ``count`` beside DataTrove, for each tokenizer that people use, on clean texts and on those of the web.

python -m benchmarks.tokenizers_and_texts [--text-mb 400] [--datatrove-text-mb 100] [--tokenizers …] [--texts …]

DataTrove takes minutes where ``build`` takes seconds, and its rate does not depend on how much text there is: so it may
run on a smaller corpus, and its start-up is left out of its rate. On that corpus all must have done the same work: the
ids of ``build`` are the first of DataTrove's, and both counters find the same number. The larger corpus is then counted
and built alone, and must come to as many ids as were asked for. All are processes of their own, as in
``python -m benchmarks``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from rich.console import Console

from benchmarks.harness.contenders import BUILD, COUNT, DATATROVE, DATATROVE_COUNT, Setting
from benchmarks.harness.corpus import TEXTS, Corpus, CorpusSpec, Texts, make_corpus
from benchmarks.harness.machine import machine_at_rest, versions
from benchmarks.harness.places import WARM_UP_MB, add_place_options, check_broetchen
from benchmarks.harness.report import (
    TARGET_HEADINGS,
    Row,
    Run,
    Target,
    machine_line,
    markdown_table,
    rich_table,
    summarize,
    target_cells,
    targets_table,
    versions_line,
)
from benchmarks.harness.runner import Bench, check_counts, run_command
from benchmarks.harness.same_work import WrongWork
from benchmarks.harness.tokenizer_files import NAMES, TRAINED, NamedTokenizer, find_tokenizer
from transforms.encoding.pool import choose_engine, encode_samples, leading_documents, reference_share
from transforms.tokenizer.file import load_tokenizer
from transforms.tokenizer.spec import TokenizerSpec

BUDGET_SHARE = 0.95
WANTED_OF_DATATROVE = 10.0
WANTED_OF_OWN = 0.6
_COMPARED_BYTES = 1 << 20


@dataclass(frozen=True)
class Pair:
    """One of our commands beside DataTrove's, with one tokenizer, on texts of one kind.

    Attributes:
        tokenizer: its name.
        texts: the kind.
        ours: the command's figures.
        theirs: DataTrove's, which may be of a smaller corpus.
        reference_share: of the bytes of text, those that `tokenizers` encodes though gigatoken is the engine.
    """

    tokenizer: str
    texts: Texts
    ours: Row
    theirs: Row
    reference_share: float

    @property
    def ratio(self) -> float | None:
        """Our tokens a second, start-up included, over DataTrove's without it; None where its run was too short."""
        return _ratio(self.ours.tokens_per_second, self.theirs.steady_tokens_per_second)

    @property
    def steady_ratio(self) -> float | None:
        """The same without our start-up; None where a run was too short to tell."""
        return _ratio(self.ours.steady_tokens_per_second, self.theirs.steady_tokens_per_second)

    @property
    def steady_mb_per_second(self) -> float | None:
        """Our MB of text a second without start-up; None where the run was too short to tell."""
        steady = self.ours.steady_tokens_per_second
        return None if steady is None else self.ours.text_mb_per_second * steady / self.ours.tokens_per_second


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours / theirs


def own_ratios(pair: Pair, pairs: Sequence[Pair]) -> tuple[float | None, float | None]:
    """MB/s of text over the same command's on clean texts with the sample tokenizer, with start-up and without.

    None where a run was too short to tell, and where that one was not measured.
    """
    for one in pairs:
        if (one.ours.contender, one.tokenizer, one.texts) == (pair.ours.contender, "sample", "clean"):
            return (
                pair.ours.text_mb_per_second / one.ours.text_mb_per_second,
                _ratio(pair.steady_mb_per_second, one.steady_mb_per_second),
            )
    return None, None


HEADINGS = (
    "command",
    "tokenizer",
    "texts",
    "Mtok/s",
    "MB/s of text",
    "CPU s",
    "DataTrove, Mtok/s",
    "÷ DataTrove",
    "÷ DataTrove, start-up left out",
    "÷ sample, clean",
    "÷ sample, clean, start-up left out",
    "by the reference",
)
_TEXT_COLUMNS = 3


def cells(pair: Pair, pairs: Sequence[Pair]) -> list[str]:
    """The cells of a table with `HEADINGS`."""

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    theirs = pair.theirs.steady_tokens_per_second
    return [
        pair.ours.contender,
        pair.tokenizer,
        pair.texts,
        f"{pair.ours.tokens_per_second / 1e6:.2f}",
        f"{pair.ours.text_mb_per_second:.1f}",
        f"{pair.ours.cpu_seconds:.1f}",
        *map(number, (None if theirs is None else theirs / 1e6, pair.ratio, pair.steady_ratio)),
        *map(number, own_ratios(pair, pairs)),
        f"{pair.reference_share:.3%}",
    ]


def targets(pairs: Sequence[Pair]) -> list[Target]:
    """The targets on texts of the web with the recipe's tokenizers, as far as they were measured.

    DataTrove is compared to our rate with our start-up, and our own rates to each other without, where the runs are
    long enough: start-up would bring them nearer together.
    """
    found = []
    for pair in pairs:
        if pair.texts == "web" and pair.tokenizer in TRAINED:
            what = f"{pair.ours.contender}, {pair.tokenizer}, web ÷"
            if pair.ratio is not None:
                found.append(
                    Target(f"{what} DataTrove, tokens/s", pair.ratio, WANTED_OF_DATATROVE, at_least=True, unit="×")
                )
            whole, steady = own_ratios(pair, pairs)
            if whole is not None:
                figure = "MB/s" if steady is None else "MB/s, start-up left out"
                value = whole if steady is None else steady
                found.append(Target(f"{what} sample, clean, {figure}", value, WANTED_OF_OWN, at_least=True, unit="×"))
    return found


def caption(text_mb: int, datatrove_text_mb: int) -> str:
    """An explanation of the table's figures."""
    return (
        f"Ours: {text_mb} MB of text, start-up included unless said otherwise. DataTrove: {datatrove_text_mb} MB, its "
        "start-up left out, as its rate does not depend on the size. CPU s: ours. ÷ sample, clean: MB/s of text over "
        "the same command's with the sample tokenizer on clean texts. By the reference: the share of the bytes that "
        "`tokenizers` encodes though gigatoken is the engine. –: a run was too short to tell, or one was left out."
    )


def share_of_reference(tokenizer: NamedTokenizer, corpus: Corpus) -> float:
    """The share of the bytes that the reference encodes, of a sample from all files of the corpus.

    Raises:
        UsageError: gigatoken cannot be used with this tokenizer, or gives other ids than `tokenizers`.
    """
    loaded = load_tokenizer(str(tokenizer.path))
    spec = TokenizerSpec(str(tokenizer.path), loaded.sha256, bos_token=None, eos_token=None, special_tokens="text")
    texts = pa.concat_arrays(corpus.texts(groups_per_file=1))
    compared = leading_documents(texts, _COMPARED_BYTES)
    choose_engine(tokenizer.name, spec, "gigatoken", encode_samples(spec, [compared]))
    return reference_share(spec, texts)


def measure(
    runner: Bench, corpora: dict[int, Corpus], text_mb: int, datatrove_text_mb: int, repeat: int, warm_ups: int
) -> Iterator[tuple[Row, Row]]:
    """Runs all with one tokenizer on texts of one kind; ours and DataTrove's, of `build` and of `count`.

    Args:
        runner: with the tokenizer.
        corpora: by their MB of text: of `WARM_UP_MB`, `datatrove_text_mb` and `text_mb`.
        text_mb: of the corpus for our commands.
        datatrove_text_mb: of the corpus for DataTrove, and for the comparison of the work.
        repeat: how often each is measured.
        warm_ups: how often all run on the smallest corpus first; the last tells the cost of start-up.

    Raises:
        ContenderFailed: one ended with an error.
        WrongWork: they did not do the same.
    """
    small, large = corpora[datatrove_text_mb], corpora[text_mb]

    def both(corpus: Corpus, corpus_mb: int) -> list[Run]:
        """DataTrove and ours on one corpus, in this order, and the same work."""
        ids = [runner.run(DATATROVE, corpus, corpus_mb), runner.run(BUILD, corpus, corpus_mb)]
        counts = [runner.count(DATATROVE_COUNT, corpus, corpus_mb), runner.count(COUNT, corpus, corpus_mb)]
        check_counts(counts)
        if (counted := counts[0].tokens + corpus.documents) != ids[0].tokens:
            raise WrongWork(f"{ids[0].tokens} tokens were written, and {counted} counted with an EOS for each document")
        return [*ids, *counts]

    for _ in range(warm_ups):
        start_runs = both(corpora[WARM_UP_MB], WARM_UP_MB)
    runs = []
    for _ in range(repeat):
        runs += both(small, datatrove_text_mb)
        if text_mb != datatrove_text_mb:
            counted = runner.count(COUNT, large, text_mb)
            runs += [counted, runner.run_build(large, text_mb, counted.tokens + large.documents)]
    rows = {(row.contender, row.corpus_mb): row for row in summarize(runs, start_runs)}
    for ours, theirs in ((BUILD, DATATROVE), (COUNT, DATATROVE_COUNT)):
        yield rows[ours.name, text_mb], rows[theirs.name, datatrove_text_mb]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tokenizers_and_texts",
        description="Run build and count beside DataTrove with several tokenizers, on clean texts and on the web's.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--tokenizers", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--texts", nargs="+", choices=TEXTS, default=list(TEXTS))
    parser.add_argument("--text-mb", type=int, default=400, help="text of the corpus for build and count in MB")
    parser.add_argument("--datatrove-text-mb", type=int, default=100, help="text of the corpus for DataTrove in MB")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each; medians")
    parser.add_argument("--workers", type=int, default=2, help="processes of DataTrove")
    add_place_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the corpora")
    arguments = parser.parse_args()
    check_broetchen(parser, arguments)
    return arguments


def bench(arguments: argparse.Namespace, console: Console) -> None:
    """Makes tokenizers and corpora, runs all, prints and writes the results."""
    with console.status("making tokenizers and corpora"):
        tokenizers = [find_tokenizer(name, arguments.samples, arguments.cache) for name in arguments.tokenizers]
        corpora = {
            texts: {
                text_mb: make_corpus(
                    arguments.samples,
                    arguments.cache,
                    CorpusSpec.of_size(text_mb, seed=arguments.seed, texts=texts),
                )
                for text_mb in (WARM_UP_MB, arguments.datatrove_text_mb, arguments.text_mb)
            }
            for texts in arguments.texts
        }
    described = machine_at_rest(console)
    with console.status("comparing the engines"):  # before anything takes long
        shares = {
            (tokenizer.name, texts): share_of_reference(tokenizer, corpora[texts][arguments.datatrove_text_mb])
            for tokenizer in tokenizers
            for texts in arguments.texts
        }
    pairs: list[Pair] = []
    for texts in arguments.texts:
        for tokenizer in tokenizers:
            console.print(f"{tokenizer.name}, {texts} texts:", style="bold")
            setting = Setting(tokenizer.path, arguments.broetchen.absolute(), arguments.workers)
            runner = Bench(setting, BUDGET_SHARE, arguments.cache, console)
            # The very first round brings the libraries' bytecode to disk and page cache.
            rows = measure(
                runner,
                corpora[texts],
                arguments.text_mb,
                arguments.datatrove_text_mb,
                arguments.repeat,
                warm_ups=1 if pairs else 2,
            )
            share = shares[tokenizer.name, texts]
            pairs += [Pair(tokenizer.name, texts, ours, theirs, share) for ours, theirs in rows]
    pairs.sort(key=lambda pair: pair.ours.contender)
    report(arguments, described, pairs, console)


def report(arguments: argparse.Namespace, described: dict[str, Any], pairs: Sequence[Pair], console: Console) -> None:
    """Prints and writes the results."""
    table, wanted = [cells(pair, pairs) for pair in pairs], targets(pairs)
    shown = rich_table("Tokenizers and texts", HEADINGS, table, _TEXT_COLUMNS)
    shown.caption = caption(arguments.text_mb, arguments.datatrove_text_mb)
    console.print(shown)
    if wanted:
        console.print(targets_table(wanted))
    date = datetime.now(UTC).date().isoformat()
    results = {
        "date": date,
        "machine": described,
        "versions": versions(),
        "setting": {
            "text_mb": arguments.text_mb,
            "datatrove_text_mb": arguments.datatrove_text_mb,
            "repeat": arguments.repeat,
            "workers": arguments.workers,
            "budget_share": BUDGET_SHARE,
            "seed": arguments.seed,
        },
        "pairs": [asdict(pair) for pair in pairs],
        "targets": [{**asdict(target), "met": target.met} for target in wanted],
    }
    lines = [
        machine_line(date, described),
        "",
        f"{caption(arguments.text_mb, arguments.datatrove_text_mb)} Budget of `build`: {BUDGET_SHARE:.0%} of the "
        f"tokens. DataTrove with {arguments.workers} workers. Runs of each: {arguments.repeat}. "
        f"{versions_line(versions())}",
        "",
        *markdown_table(HEADINGS, table, _TEXT_COLUMNS),
        "",
        *markdown_table(TARGET_HEADINGS, [target_cells(target) for target in wanted]),
    ]
    path = arguments.cache / "tokenizers-and-texts.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
    console.print(f"also in {path} and {path.stem}.md beside it", highlight=False)


if __name__ == "__main__":
    sys.exit(run_command(parse_arguments, bench))
