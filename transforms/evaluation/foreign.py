"""Encoders by `tiktoken` and `sentencepiece`, for tokenizers that the library `tokenizers` does not read.

Both libraries are imported only where such a tokenizer is at hand.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Literal

import pyarrow as pa

from transforms.encoding.splits import PROVEN_SPLITS
from transforms.evaluation.vocabulary import Vocabulary
from transforms.segments.encoded import Encoded

ForeignKind = Literal["tiktoken", "sentencepiece"]
"""The library that reads a file."""

_RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\s*")

# The special tokens that Llama 3 adds to its ranks; none of them is encoded here, but they are of the vocabulary.
_LLAMA3_SPECIAL_TOKENS = 256
# Bounds that Llama 3's own reader keeps, as MaxText's does: tiktoken fails on longer runs of one kind.
_LLAMA3_MAX_CHARACTERS = 400_000
_LLAMA3_MAX_RUN = 25_000
_RUN = re.compile(r"\s+|\S+")


class TiktokenEncoder:
    """Encodes with `tiktoken`, ranks as a `.tiktoken` file holds them, split by Llama 3's pattern; see `Encoder`.

    Args:
        data: the file: a line for each token, its bytes in base 64 and its rank.

    Raises:
        ValueError: it is not of that form, or lacks ranks or single bytes; says what is wrong.
        ImportError: the library is not installed.
    """

    name = "tiktoken"

    def __init__(self, data: bytes) -> None:
        import tiktoken

        self.ranks = _read_ranks(data)
        (pattern,) = PROVEN_SPLITS["llama3"]
        self._encoding = tiktoken.Encoding(
            "ranks", pat_str=pattern, mergeable_ranks=self.ranks, special_tokens={}, explicit_n_vocab=len(self.ranks)
        )

    def encode(self, texts: pa.LargeStringArray) -> Encoded:
        """See `Encoder.encode`."""
        return Encoded.of(
            list(itertools.chain.from_iterable(map(self._encoding.encode_ordinary, split_as_llama3(text))))
            for text in texts.to_pylist()
        )

    def vocabulary(self) -> Vocabulary:
        """Its size with Llama 3's special tokens, and its single bytes."""
        bytes_alone = tuple(rank for token, rank in self.ranks.items() if len(token) == 1 and token[0] >= 0x80)
        return Vocabulary(len(self.ranks) + _LLAMA3_SPECIAL_TOKENS, byte_ids=bytes_alone)


def _read_ranks(data: bytes) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise ValueError(f"line {number} is not a token in base 64 and its rank") from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError(f"its {len(ranks):,} tokens do not have the ranks from 0 on, each once")
    missing = sum(bytes([byte]) not in ranks for byte in range(256))
    if missing:
        raise ValueError(f"{missing} of the 256 bytes have no token")
    return ranks


def split_as_llama3(text: str) -> Iterator[str]:
    """Parts of a document that are encoded each on its own, as Llama 3's reader does it; most have one part.

    >>> [len(part) for part in split_as_llama3("a" * 60_000 + " b")]
    [25000, 25000, 10002]
    """
    for start in range(0, len(text), _LLAMA3_MAX_CHARACTERS):
        part = text[start : start + _LLAMA3_MAX_CHARACTERS]
        cut = 0
        if len(part) > _LLAMA3_MAX_RUN:
            for run in _RUN.finditer(part):
                for end in range(run.start() + _LLAMA3_MAX_RUN, run.end(), _LLAMA3_MAX_RUN):
                    yield part[cut:end]
                    cut = end
        yield part[cut:]


class SentencePieceEncoder:
    """Encodes with `sentencepiece`; see `Encoder`.

    Args:
        data: the model.

    Raises:
        ValueError: it is no such model, or cut short.
        ImportError: the library is not installed.
    """

    name = "sentencepiece"

    def __init__(self, data: bytes) -> None:
        import sentencepiece

        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=data)
            size = self._processor.vocab_size()
        except RuntimeError as error:
            raise ValueError("it cannot be read") from error
        if not size:
            raise ValueError("it holds no pieces")

    def encode(self, texts: pa.LargeStringArray) -> Encoded:
        """See `Encoder.encode`."""
        return Encoded.of(self._processor.encode(texts.to_pylist(), out_type=int, num_threads=1))

    def vocabulary(self) -> Vocabulary:
        """Its size, its unknown piece and its byte pieces."""
        size = self._processor.vocab_size()
        return Vocabulary(
            size,
            unknown_ids=tuple(i for i in range(size) if self._processor.is_unknown(i)),
            byte_ids=tuple(i for i in range(size) if self._processor.is_byte(i)),
        )


FOREIGN_ENCODERS: Mapping[str, type[TiktokenEncoder] | type[SentencePieceEncoder]] = {
    "tiktoken": TiktokenEncoder,
    "sentencepiece": SentencePieceEncoder,
}
"""The encoders by `ForeignKind`; each is made from the file's content."""


def foreign_kind(data: bytes) -> ForeignKind:
    """The kind of a file that is no JSON, by its first line: ranks of `tiktoken`, or else a model of SentencePiece.

    >>> foreign_kind(b"IQ== 0\\nIg== 1"), foreign_kind(b"\\x0a\\x0e\\x0a\\x05<unk>")
    ('tiktoken', 'sentencepiece')
    """
    return "tiktoken" if _RANK_LINE.fullmatch(data[:200].partition(b"\n")[0]) else "sentencepiece"
