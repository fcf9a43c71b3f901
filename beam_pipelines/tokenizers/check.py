"""Checks that a trained tokenizer gives back the text that it encodes, mostly text kept out of its training."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from tokenizers import Tokenizer

from beam_pipelines.console.progress import bar
from beam_pipelines.tokenizers.corpus import Corpus, description, followed
from transforms.bpe.corpus import PartCount, TextStream
from transforms.bpe.styles import TokenizerStyle, check_round_trip
from transforms.progress.display import BYTES

HELD_OUT_EVERY = 100
"""One of so many documents is kept out, the last, as long as these make no more than 16 MiB of text."""

_MOST_BYTES = 16 << 20


class HeldOut:
    """Every hundredth document of a stream, taken out of it and kept, as long as they make no more than 16 MiB.

    Attributes:
        texts: those documents, as far as the stream has been read.
        bytes: of their UTF-8.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.bytes = 0
        self._seen = 0

    def kept_out(self, batches: Iterable[pa.LargeStringArray]) -> Iterator[pa.LargeStringArray]:
        """The stream without them."""
        for batch in batches:
            first = HELD_OUT_EVERY - 1 - self._seen % HELD_OUT_EVERY
            self._seen += len(batch)
            out = [index for index in range(first, len(batch), HELD_OUT_EVERY) if self._keep(batch[index].as_py())]
            starts = [0, *(index + 1 for index in out)]
            pieces = [batch.slice(a, b - a) for a, b in zip(starts, [*out, len(batch)], strict=True)]
            yield pa.concat_arrays(pieces) if out else batch

    def _keep(self, text: str) -> bool:
        size = len(text.encode())
        fits = self.bytes + size <= _MOST_BYTES
        if fits:
            self.texts.append(text)
            self.bytes += size
        return fits


_CHECKED_DOCUMENTS = 256


@dataclasses.dataclass(frozen=True)
class RoundTrip:
    """A text that a tokenizer has encoded and decoded, and that came back.

    Attributes:
        what: which text it is.
        text: how much of it.
        tokens: that it makes.
        details: which documents it is made of, as plain JSON types.
    """

    what: str
    text: PartCount
    tokens: int
    details: Mapping[str, Any]


def check_tokenizer(
    tokenizer: Tokenizer,
    style: TokenizerStyle,
    corpus: Corpus,
    limits: Mapping[str, int] | None,
    kept: HeldOut,
    *,
    check_all: bool,
    quiet: bool,
) -> RoundTrip:
    """Checks the evaluation text, or the text kept out of the training; the whole corpus where there is neither.

    Args:
        limits: the most bytes that were taken of each part of the corpus, by name; None where there was no limit.
        kept: the text kept out of the training.
        check_all: whether to check the whole corpus in any case.

    Raises:
        BroetchenError: a document does not come back.
    """
    if corpus.evaluation:
        stream = TextStream(corpus.evaluation)
        tokens = _check_texts(tokenizer, style, stream, quiet=quiet)
        if not check_all:
            return RoundTrip("evaluation text", stream.total, tokens, description(corpus.evaluation, stream))
    elif kept.texts and not check_all:
        tokens = _check_texts(tokenizer, style, [pa.array(kept.texts, pa.large_string())], quiet=quiet)
        count = PartCount(len(kept.texts), kept.bytes)
        return RoundTrip("documents kept out of training", count, tokens, {"every": HELD_OUT_EVERY})
    stream = TextStream(corpus.parts, limits)
    tokens = _check_texts(tokenizer, style, stream, quiet=quiet)
    return RoundTrip("the whole corpus", stream.total, tokens, {})


def _check_texts(
    tokenizer: Tokenizer, style: TokenizerStyle, batches: Iterable[pa.LargeStringArray], *, quiet: bool
) -> int:
    """The tokens that all the texts make."""
    tokens = documents = 0
    with bar("checking", None, BYTES, quiet=quiet) as progress:
        for batch in followed(batches, progress, then="checking"):
            for texts in itertools.batched(batch.to_pylist(), _CHECKED_DOCUMENTS):
                tokens += check_round_trip(tokenizer, style, texts, documents)
                documents += len(texts)
    return tokens
