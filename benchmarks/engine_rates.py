"""The engines alone: MB of text that gigatoken and `tokenizers` encode in a second of one processor, without a build.

python -m benchmarks.engine_rates [--text-mb 40] [--tokenizers …] [--texts …] [--tokenizer-file FILE …]

Each engine encodes in a process of its own, in one thread, twice: the first pass meets every word for the first time,
the second finds the words in the engine's cache, as far as the encoder lets it grow. Anything that an engine makes only
once is made before. Rates are per CPU second, so that other work on the machine does little harm. The ids of the texts
that `tokenizers` encodes must be the same by both.

The rate of gigatoken's first pass rises with the text, since new words become rarer: compare rows, and give the size.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from benchmarks.harness.corpus import TEXTS, Corpus, CorpusSpec, Texts, make_corpus
from benchmarks.harness.machine import machine_at_rest
from benchmarks.harness.places import add_place_options
from benchmarks.harness.report import markdown_table, rich_table
from benchmarks.harness.runner import run_command
from benchmarks.harness.same_work import WrongWork
from benchmarks.harness.tokenizer_files import NAMES, NamedTokenizer, find_tokenizer
from benchmarks.harness.web_texts import RARE
from transforms.encoding.encoders import Encoder, GigatokenEncoder, ReferenceEncoder
from transforms.encoding.pool import leading_documents
from transforms.encoding.unfit import GigatokenUnfitError
from transforms.tokenizer.file import load_tokenizer

ENGINES = ("gigatoken", "tokenizers")
# Tables, the reference's own copy of the tokenizer and so on are made at the first text that needs them.
_FIRST_TEXT = f"Käse, 12   ½ {' '.join(RARE)}"


@dataclass(frozen=True)
class EngineRate:
    """The rate of one engine, and its share and digest of the text.

    Attributes:
        passes: MB of text per CPU second, of the first pass and of the second.
        reference_share: of the bytes of text, those that `tokenizers` encoded; 1 where it is the engine.
        digest: SHA-256 of the ids of the leading documents, as little-endian uint32.
    """

    passes: tuple[float, float]
    reference_share: float
    digest: str


def leading_texts(corpus: Corpus, text_bytes: int) -> Iterator[pa.LargeStringArray]:
    """Documents in reading order, up to the one with which they hold `text_bytes` of UTF-8."""
    for texts in corpus.texts():
        if text_bytes <= 0:
            return
        some = leading_documents(texts, text_bytes)
        text_bytes -= _size(some)
        yield some


def measure_engine(engine: str, path: Path, corpus: Corpus, text_bytes: int, compared: int) -> EngineRate | str:
    """Encodes the beginning of a corpus twice; to be run in a process that does nothing else.

    Args:
        engine: one of `ENGINES`.
        path: the tokenizer.json.
        corpus: the texts.
        text_bytes: how much of them.
        compared: how many documents the digest is of.

    Returns:
        the rates, or why gigatoken cannot be used.
    """
    tokenizer = load_tokenizer(str(path))
    try:
        encoder: Encoder
        encoder = GigatokenEncoder(tokenizer, "text") if engine == "gigatoken" else ReferenceEncoder(tokenizer, "text")
    except GigatokenUnfitError as error:
        return error.reason
    encoder.encode(pa.array([_FIRST_TEXT], pa.large_string()))
    batches = list(leading_texts(corpus, text_bytes))
    size = sum(map(_size, batches))
    by_reference = encoder.reference_bytes if isinstance(encoder, GigatokenEncoder) else 0
    seconds, share = [], 1.0
    for number in range(2):
        before = time.process_time()
        encoded = [encoder.encode(texts) for texts in batches]
        seconds.append(time.process_time() - before)
        if number == 0 and isinstance(encoder, GigatokenEncoder):
            share = (encoder.reference_bytes - by_reference) / max(1, size)
    digest, documents = hashlib.sha256(), compared
    for texts in encoded:
        if documents > 0:
            ids = texts.ids[: texts.offsets[min(documents, len(texts.offsets) - 1)]]
            digest.update(np.ascontiguousarray(ids, "<u4"))
            documents -= len(texts.offsets) - 1
    first, second = (size / 1e6 / one for one in seconds)
    return EngineRate((first, second), share, digest.hexdigest())


def _size(texts: pa.LargeStringArray) -> int:
    return int(pc.sum(pc.binary_length(texts)).as_py() or 0)


HEADINGS = (
    "tokenizer",
    "texts",
    "gigatoken, first pass",
    "second",
    "tokenizers, first pass",
    "second",
    "÷, first pass",
    "second",
    "by the reference",
)
_TEXT_COLUMNS = 2


def cells(tokenizer: str, texts: Texts, fast: EngineRate | str, reference: EngineRate) -> list[str]:
    """The cells of a table with `HEADINGS`."""
    slow = [f"{rate:.2f}" for rate in reference.passes]
    if isinstance(fast, str):
        return [tokenizer, texts, f"none: {fast}", "", *slow, "", "", "100%"]
    ratios = [f"{ours / theirs:.1f}×" for ours, theirs in zip(fast.passes, reference.passes, strict=True)]
    return [
        tokenizer,
        texts,
        *(f"{rate:.1f}" for rate in fast.passes),
        *slow,
        *ratios,
        f"{fast.reference_share:.3%}",
    ]


def measure(tokenizer: NamedTokenizer, texts: Texts, corpus: Corpus, text_mb: float, reference_mb: float) -> list[str]:
    """Both engines with one tokenizer on texts of one kind, as the cells of a table with `HEADINGS`.

    Raises:
        WrongWork: the ids are not the same.
    """
    sizes = {"gigatoken": int(text_mb * 1e6), "tokenizers": int(reference_mb * 1e6)}
    compared = sum(map(len, leading_texts(corpus, min(sizes.values()))))
    rates: dict[str, EngineRate | str] = {}
    for engine in ENGINES:
        # Spawned: gigatoken stops working in a forked child.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            rates[engine] = pool.submit(
                measure_engine, engine, tokenizer.path, corpus, sizes[engine], compared
            ).result()
    fast, reference = rates["gigatoken"], rates["tokenizers"]
    assert isinstance(reference, EngineRate)
    if isinstance(fast, EngineRate) and fast.digest != reference.digest:
        raise WrongWork(f"{tokenizer.name}, {texts} texts: gigatoken gives other ids than tokenizers")
    return cells(tokenizer.name, texts, fast, reference)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine_rates",
        description="Time the encoders alone, in one thread: gigatoken's and that of tokenizers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--tokenizers", nargs="*", choices=NAMES, default=list(NAMES))
    parser.add_argument("--tokenizer-file", nargs="+", default=[], help="tokenizer.json files, of published ones say")
    parser.add_argument("--texts", nargs="+", choices=TEXTS, default=list(TEXTS))
    parser.add_argument("--text-mb", type=int, default=40, help="text for gigatoken in MB")
    parser.add_argument("--reference-text-mb", type=float, default=5, help="text for tokenizers in MB, of the same")
    add_place_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the corpora")
    return parser.parse_args()


def bench(arguments: argparse.Namespace, console: Console) -> None:
    """Makes tokenizers and corpora, runs the engines, prints and writes the table."""
    # Read by the processes that are started from here.
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    names: Sequence[str] = [*arguments.tokenizers, *arguments.tokenizer_file]
    table = []
    with console.status("making tokenizers and corpora"):
        tokenizers = [find_tokenizer(name, arguments.samples, arguments.cache) for name in names]
        corpora = {
            texts: make_corpus(
                arguments.samples,
                arguments.cache,
                CorpusSpec.of_size(arguments.text_mb, seed=arguments.seed, texts=texts),
            )
            for texts in arguments.texts
        }
    machine_at_rest(console)
    for tokenizer in tokenizers:
        for texts, corpus in corpora.items():
            with console.status(f"{tokenizer.name}, {texts} texts"):
                table.append(measure(tokenizer, texts, corpus, arguments.text_mb, arguments.reference_text_mb))
    shown = rich_table("MB of text per CPU second, one thread", HEADINGS, table, _TEXT_COLUMNS)
    shown.caption = (
        f"gigatoken: {arguments.text_mb} MB of text, tokenizers: the first {arguments.reference_text_mb:g} MB of it, "
        "and the same ids. By the reference: the share of the bytes that tokenizers encodes though gigatoken is the "
        "engine."
    )
    console.print(shown)
    path = arguments.cache / "engine-rates.md"
    path.write_text("\n".join([*markdown_table(HEADINGS, table, _TEXT_COLUMNS), "", shown.caption]) + "\n")
    console.print(f"also in {path}", highlight=False)


if __name__ == "__main__":
    sys.exit(run_command(parse_arguments, bench))
