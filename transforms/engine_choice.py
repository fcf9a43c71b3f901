"""Chooses what encodes: gigatoken where it can be used and gives the ids of `tokenizers` on a sample of the text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from transforms.encoded import Encoded, first_difference
from transforms.encoder_pool import borrow_encoder, gigatoken_obstacle
from transforms.errors import UsageError
from transforms.tokenizer_spec import ChosenEngine, Engine, TokenizerSpec


def choose_engine(
    what: str, tokenizer: TokenizerSpec, wanted: Engine, samples: Iterable[tuple[pa.LargeStringArray, Encoded]]
) -> tuple[ChosenEngine, str | None]:
    """The engine to encode with, and why "auto" did not get gigatoken, to stand after its name; None where it did.

    Args:
        what: what is encoded or encodes, as it begins an error's message.
        tokenizer: what encodes.
        wanted: as the user asked for it.
        samples: texts and their ids by `tokenizers`; taken only as far as they are needed.

    Raises:
        UsageError: gigatoken was asked for by name and cannot be used, or gives other ids.
    """
    if wanted == "tokenizers":
        return "tokenizers", None
    reason = gigatoken_obstacle(tokenizer)
    if reason is None:
        with borrow_encoder(tokenizer, "gigatoken") as fast:
            differences = (first_difference(expected, fast.encode(texts)) for texts, expected in samples)
            reason = next(filter(None, differences), None)
    if reason is None:
        return "gigatoken", None
    if wanted == "gigatoken":
        raise UsageError(f"{what}: --engine gigatoken cannot be used: gigatoken {reason}; take --engine auto")
    return "tokenizers", reason


def encode_samples(
    tokenizer: TokenizerSpec, samples: Iterable[pa.LargeStringArray]
) -> Iterator[tuple[pa.LargeStringArray, Encoded]]:
    """Texts, each with their ids by `tokenizers`, one after the other as they are asked for."""
    for texts in samples:
        with borrow_encoder(tokenizer, "tokenizers") as reference:
            expected = reference.encode(texts)
        yield texts, expected


def leading_documents(texts: pa.LargeStringArray, text_bytes: int) -> pa.LargeStringArray:
    """The first documents, up to the one with which they hold `text_bytes` of UTF-8; all where there are fewer.

    >>> leading_documents(pa.array(["ab", "ü", "c", "d"], pa.large_string()), 4).to_pylist()
    ['ab', 'ü']
    """
    ends = pc.cumulative_sum(pc.binary_length(texts)).to_numpy()
    return texts.slice(0, int(ends.searchsorted(text_bytes)) + 1)
