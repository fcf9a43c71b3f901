"""Trains a byte-level BPE tokenizer on a vocabulary corpus, checks it, and writes it for transformers and MaxText.

Training runs on one machine, with all its threads: merges need the counts of all words in one place.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import logging
import time
from collections.abc import Sequence

from beam_pipelines.console.progress import bar
from beam_pipelines.tokenizers.check import HeldOut, RoundTrip, check_tokenizer
from beam_pipelines.tokenizers.corpus import Corpus, description, followed
from beam_pipelines.tokenizers.folder import check_output, tokenizer_files, write_files
from transforms.bpe import train as bpe
from transforms.bpe.corpus import PartCount, TextPart, TextStream, spread_sample
from transforms.bpe.long_words import WithoutLongWords
from transforms.bpe.memory import available_memory, memory_warning
from transforms.bpe.pairs import MOST_OCCURRENCES, PairCounts, overflow_warning
from transforms.bpe.styles import (
    EOS_TOKEN,
    STYLES,
    TokenizerStyle,
    check_bytes,
    check_vocab_size,
    merge_count,
    special_tokens,
)
from transforms.budget.apportion import apportion
from transforms.errors import UsageError
from transforms.files import storage
from transforms.progress.display import BYTES

_LOGGER = logging.getLogger(__name__)

_FORMAT_VERSION = 1
_SAMPLE_BYTES = 4 << 20


@dataclasses.dataclass(frozen=True)
class TrainingSummary:
    """The result of a training.

    Attributes:
        corpus: the text that the vocabulary was learnt from.
        checked: the text that the tokenizer was checked on.
        skipped: rows without text.
        long_words, long_word_bytes: of words that were left out of the corpus, since they are too long to train on.
    """

    output: str
    style: str
    corpus: PartCount
    vocab_size: int
    asked_vocab_size: int
    merges: int
    checked: RoundTrip
    skipped: int
    long_words: int
    long_word_bytes: int
    seconds: float


def train_tokenizer(
    corpus: Corpus,
    output: str,
    *,
    style: str = "gpt-4",
    trainer: str = "tokenizers",
    vocab_size: int = 65_536,
    eos_token: str = EOS_TOKEN,
    more_special_tokens: Sequence[str] = (),
    max_bytes: int | None = None,
    check_all: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> TrainingSummary:
    """Trains a tokenizer, and writes it to the folder `output`, complete or not at all.

    Args:
        corpus: the text to train on.
        output: a folder on any filesystem that Beam writes.
        style: a key of `transforms.bpe.styles.STYLES`.
        trainer: a key of `transforms.bpe.train.TRAINERS`; the tokenizer is the same.
        vocab_size: of the tokenizer, special tokens included.
        eos_token: the name of the EOS token, which is added where it is not one of the usual.
        more_special_tokens: names of others, which come last.
        max_bytes: the most text to take, divided among the parts by their weights.
        check_all: whether the whole corpus is encoded and decoded too, not the evaluation text alone.
        overwrite: whether to replace a tokenizer that is there.
        quiet: whether to show no progress.

    Raises:
        UsageError: style or vocabulary size cannot be; there is a tokenizer already.
        BroetchenError: the corpus is empty, damaged or has more of a pair than trainers count, the tokenizer loses
            text, or the output cannot be written.
    """
    started = time.monotonic()
    if style not in STYLES:
        raise UsageError(f"--style {style}: there is no such style; take one of {', '.join(STYLES)}")
    if trainer not in bpe.TRAINERS:
        raise UsageError(f"--trainer {trainer}: there is no such trainer; take one of {', '.join(bpe.TRAINERS)}")
    form = STYLES[style]
    special = special_tokens(eos_token, more_special_tokens)
    check_vocab_size(vocab_size, special)
    output = storage.without_slash(output)
    check_output(output, overwrite=overwrite)
    limits = None if max_bytes is None else apportion(max_bytes, corpus.weights)
    _warn_of_size(form, corpus.parts, max_bytes)

    stream, kept = TextStream(corpus.parts, limits), HeldOut()
    total = max_bytes or _total(corpus.parts)
    pairs = PairCounts(form, total, MOST_OCCURRENCES)
    with bar("training", total, BYTES, quiet=quiet) as progress:
        batches = followed(stream, progress, then="merging")
        if not corpus.evaluation:
            batches = kept.kept_out(batches)
        words = WithoutLongWords(form, batches)
        tokenizer = bpe.TRAINERS[trainer](form, pairs.checked(words), vocab_size, special)
    pairs.check_merges(tokenizer)
    check_bytes(tokenizer)
    checked = check_tokenizer(tokenizer, form, corpus, limits, kept, check_all=check_all, quiet=quiet)

    learnt = PartCount(stream.total.documents - len(kept.texts), stream.total.bytes - kept.bytes)
    text, merges = tokenizer.to_str(pretty=True), merge_count(tokenizer)
    manifest = {
        "format": "broetchen-tokenizer",
        "format_version": _FORMAT_VERSION,
        "style": style,
        "vocab_size": tokenizer.get_vocab_size(),
        "asked_vocab_size": vocab_size,
        "merges": merges,
        "special_tokens": list(special),
        "tokenizer_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "corpus": {
            **description(corpus.parts, stream),
            "max_bytes": max_bytes,
            "skipped": dict(sorted(stream.skipped.items())),
            **({"long_words": {"words": words.words, "bytes": words.bytes}} if words.words else {}),
        },
        "trained_on": dataclasses.asdict(learnt),
        "round_trip": {
            "text": checked.what,
            **dataclasses.asdict(checked.text),
            "tokens": checked.tokens,
            **checked.details,
        },
        "versions": {name: importlib.metadata.version(name) for name in ("broetchen", "tokenizers")},
    }
    write_files(output, tokenizer_files(text, eos_token, special, manifest))
    if tokenizer.get_vocab_size() < vocab_size:
        _LOGGER.warning(
            "the corpus has no more pairs to merge: the vocabulary is %s of the %s asked for",
            f"{tokenizer.get_vocab_size():,}",
            f"{vocab_size:,}",
        )
    if doubt := pairs.doubt():
        _LOGGER.warning("%s", doubt)
    return TrainingSummary(
        output=output,
        style=style,
        corpus=learnt,
        vocab_size=tokenizer.get_vocab_size(),
        asked_vocab_size=vocab_size,
        merges=merges,
        checked=checked,
        skipped=sum(stream.skipped.values()),
        long_words=words.words,
        long_word_bytes=words.bytes,
        seconds=time.monotonic() - started,
    )


def _total(parts: Sequence[TextPart]) -> int | None:
    sizes = [part.text_bytes for part in parts]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _warn_of_size(style: TokenizerStyle, parts: Sequence[TextPart], max_bytes: int | None) -> None:
    # Records of text do not say how much text they hold; zstd leaves about 0.4 bytes of each.
    text_bytes = sum(part.text_bytes or round(sum(part.sizes) / 0.4) for part in parts)
    if max_bytes is not None:
        text_bytes = min(text_bytes, max_bytes)
    sample = spread_sample(parts, _SAMPLE_BYTES)
    if warning := memory_warning(sample, text_bytes, available_memory()):
        _LOGGER.warning("%s", warning)
    if warning := overflow_warning(style, sample, text_bytes, MOST_OCCURRENCES):
        _LOGGER.warning("%s", warning)
