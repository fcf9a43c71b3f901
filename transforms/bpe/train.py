"""Trains byte-level BPE vocabularies (R. Sennrich et al., *Neural Machine Translation of Rare Words with Subword
Units*, 2016) from a stream of text.

`tokenizers` is the trainer whose merges are right by definition. They depend on how often each word (what the style's
pre-tokenizer calls one) is in the corpus, and on nothing else: not on threads, batches or the order of documents, since
pairs that are equally frequent are taken in the order of their ids.

gigatoken counts words many times faster, and finds the same merges where it splits text alike: that is, with the split
of GPT-2, and without code points on which Unicode tables differ (`transforms.segments.code_points`).
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from transforms.bpe.styles import TokenizerStyle
from transforms.encoding.splits import byte_characters
from transforms.errors import BroetchenError, UsageError
from transforms.files.scratch import temporary_folder
from transforms.segments import code_points

_LOGGER = logging.getLogger(__name__)

# Ends a document in the file that gigatoken reads. No UTF-8 has this byte.
_END = b"\xff"
_READ_BYTES = 1 << 20

_WAIT_S = 0.2
_EMPTY = "the corpus is empty: it has not one document with text; check its path and text_column"


def train_by_tokenizers(
    style: TokenizerStyle, batches: Iterable[pa.LargeStringArray], vocab_size: int, special_tokens: Sequence[str]
) -> Tokenizer:
    """Trains a tokenizer. Ctrl-C ends the wait for it at once, though not the thread that works.

    Raises:
        BroetchenError: there was not one document.
        Exception: whatever reading the batches raises.
    """
    tokenizer = style.untrained()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    documents = 0
    failures: list[BaseException] = []

    def lists() -> Iterator[list[str]]:
        nonlocal documents
        try:
            for batch in batches:
                documents += len(batch)
                yield batch.to_pylist()
        except BaseException as error:
            failures.append(error)  # tokenizers would wrap it
            raise

    def train() -> None:
        try:
            tokenizer.train_from_iterator(lists(), trainer)
        except BaseException as error:
            failures.append(error)

    # Not in this thread: Python handles no signal while native code runs in its main thread.
    thread = threading.Thread(target=train, name="training", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_WAIT_S)
    if failures:
        raise failures[0]
    if not documents:
        raise BroetchenError(_EMPTY)
    return tokenizer


def train_by_gigatoken(
    style: TokenizerStyle, batches: Iterable[pa.LargeStringArray], vocab_size: int, special_tokens: Sequence[str]
) -> Tokenizer:
    """Trains the same tokenizer as `train_by_tokenizers`, in less time; a corpus that this cannot do goes there.

    The text takes its size again on the disk, in the system's folder for temporary files (`TMPDIR`).

    Raises:
        UsageError: the style has another split than GPT-2's.
        BroetchenError: there was not one document, or gigatoken failed.
        Exception: whatever reading the batches raises.
    """
    if style.split is not None:
        raise UsageError(
            f"--trainer gigatoken splits text as GPT-2 does, and style {style.name} does not; take --trainer tokenizers"
        )
    with temporary_folder("train") as folder:
        corpus, answer = Path(folder, "corpus"), Path(folder, "merges.json")
        with corpus.open("wb") as sink:
            obstacle = _write_corpus(style, batches, sink)
        if obstacle is None:
            merges = _merges_by_gigatoken(corpus, vocab_size - len(special_tokens), answer)
            tokenizer = _assembled(style, merges, special_tokens)
            with corpus.open("rb") as source:
                obstacle = _doubt(tokenizer, merges, _read_corpus(source))
            if obstacle is None:
                return tokenizer
        _LOGGER.warning("training with tokenizers, which is slower, since %s", obstacle)
        with corpus.open("rb") as source:
            # The text is normalized already; doing it again changes nothing.
            return train_by_tokenizers(style, _read_corpus(source), vocab_size, special_tokens)


def _doubt(
    tokenizer: Tokenizer, merges: Sequence[tuple[str, str]], batches: Iterable[pa.LargeStringArray]
) -> str | None:
    """Why the merges may be others than those of `tokenizers`, if they may."""
    if len({first + second for first, second in merges}) < len(merges):
        return "two merges make the same token"
    # Once each word is one token, gigatoken goes on with pairs that are in no word. A word that is still in parts shows
    # that the training ended before.
    for batch in batches:
        for text in batch.to_pylist():
            # Word by word: the string of a special token is none to the training, and one to the whole tokenizer.
            words = tokenizer.pre_tokenizer.pre_tokenize_str(text)
            if any(len(tokenizer.model.tokenize(word)) > 1 for word, _ in words):
                return None
    return "the corpus has no more pairs to merge"


def _write_corpus(style: TokenizerStyle, batches: Iterable[pa.LargeStringArray], sink: BinaryIO) -> str | None:
    """Writes the documents as the split sees them; returns why gigatoken cannot train on them, if it cannot."""
    obstacle = None
    documents = 0
    for batch in batches:
        texts = [style.given_back(text) for text in batch.to_pylist()]
        if obstacle is None:
            _, characters = code_points.non_ascii(np.frombuffer("".join(texts).encode(), np.uint8))
            unknown = characters[~code_points.agreed()[characters]]
            if len(unknown):
                obstacle = f"gigatoken may not know U+{unknown[0]:04X}, which is in the corpus"
        sink.writelines(text.encode() + _END for text in texts)
        documents += len(texts)
    if not documents:
        raise BroetchenError(_EMPTY)
    return obstacle


def _read_corpus(source: BinaryIO) -> Iterator[pa.LargeStringArray]:
    rest = b""
    while data := source.read(_READ_BYTES):
        *documents, rest = (rest + data).split(_END)
        yield pa.array(documents, pa.large_binary()).cast(pa.large_string())


def _merges_by_gigatoken(corpus: Path, vocab_size: int, answer: Path) -> list[tuple[str, str]]:
    # In a process of its own: gigatoken writes to standard output, and only a process can be stopped.
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_run_gigatoken, args=(str(corpus), vocab_size, str(answer)), daemon=True)
    process.start()
    try:
        process.join()
    finally:
        process.terminate()  # where Ctrl-C ended the wait
    if process.exitcode or not answer.exists():
        raise BroetchenError(
            f"gigatoken's training ended with exit code {process.exitcode}, perhaps for want of memory; give it less "
            "text by --max-bytes, or take --trainer tokenizers"
        )
    return [(first, second) for first, second in json.loads(answer.read_text())]


def _run_gigatoken(corpus: str, vocab_size: int, answer: str) -> None:
    """The work of that process. `vocab_size` is without special tokens."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    import gigatoken

    _, merges = gigatoken.train_bpe(corpus, vocab_size, [], separator=_END)
    characters = byte_characters()
    texts = [["".join(characters[byte] for byte in part) for part in merge] for merge in merges]
    Path(answer).write_text(json.dumps(texts))


def _assembled(style: TokenizerStyle, merges: Sequence[tuple[str, str]], special_tokens: Sequence[str]) -> Tokenizer:
    """The tokenizer of some merges, with ids as `tokenizers` gives them."""
    tokens = [*special_tokens, *sorted(byte_characters()), *(first + second for first, second in merges)]
    tokenizer = style.untrained()
    tokenizer.model = models.BPE({token: number for number, token in enumerate(tokens)}, list(merges))
    tokenizer.add_special_tokens(list(special_tokens))
    return tokenizer


TRAINERS = {"tokenizers": train_by_tokenizers, "gigatoken": train_by_gigatoken}
