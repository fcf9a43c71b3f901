"""Encoders kept per process and lent to one thread at a time, and the choice of their engine.

An encoder takes a quarter of a second and some 100 MB to make, and a pipeline has several steps that encode, each with
a DoFn instance per thread. They share these.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms.encoding.encoders import Encoder, GigatokenEncoder, make_encoder
from transforms.encoding.gigatoken import gigatoken_input
from transforms.encoding.long_documents import without_too_long
from transforms.encoding.unfit import GigatokenUnfitError
from transforms.errors import BroetchenError, UsageError
from transforms.segments.encoded import Encoded, first_difference
from transforms.texts import TextBatch
from transforms.tokenizer.file import TokenizerFile, load_tokenizer
from transforms.tokenizer.spec import ChosenEngine, Engine, TokenizerSpec

_lock = threading.Lock()
_idle: dict[tuple[TokenizerSpec, Engine], list[Encoder]] = {}
_tokenizers: dict[TokenizerSpec, TokenizerFile] = {}


def tokenizer_file(spec: TokenizerSpec) -> TokenizerFile:
    """The tokenizer of `spec`, loaded once a process.

    Raises:
        BroetchenError: the file is not the one that the build was started with.
    """
    with _lock:
        if spec not in _tokenizers:
            loaded = load_tokenizer(spec.path, bos_token=spec.bos_token, eos_token=spec.eos_token)
            if loaded.sha256 != spec.sha256:
                raise BroetchenError(
                    f"{spec.path}: has changed since the build began (sha256 {loaded.sha256}, not {spec.sha256}); "
                    "put the old file back, or start the build again"
                )
            _tokenizers[spec] = loaded
        return _tokenizers[spec]


def know_tokenizer(spec: TokenizerSpec, tokenizer: TokenizerFile) -> None:
    """Registers a tokenizer that is already loaded, so that this process does not load it again from `spec.path`."""
    assert tokenizer.sha256 == spec.sha256
    with _lock:
        _tokenizers[spec] = tokenizer


def warm_encoder(spec: TokenizerSpec, engine: Engine) -> None:
    """Makes the encoder that this process is likely to need, before it is needed; its faults show then."""
    with (
        contextlib.suppress(BroetchenError),
        borrow_encoder(spec, "gigatoken" if engine == "auto" else engine) as encoder,
    ):
        encoder.encode(pa.array(["Käse"], pa.large_string()))


@functools.lru_cache(maxsize=64)  # To find a tokenizer unfit for gigatoken takes a tenth of a second each time.
def expected_engine(spec: TokenizerSpec, wanted: Engine) -> ChosenEngine:
    """The engine that will probably encode, by the tokenizer's settings alone: no encoder is made, no thread started.

    Raises:
        BroetchenError: the tokenizer's file is not the one that the build was started with.
    """
    if wanted != "auto":
        return wanted
    try:
        gigatoken_input(tokenizer_file(spec), spec.special_tokens)
    except GigatokenUnfitError:
        return "tokenizers"
    return "gigatoken"


@functools.cache
def gigatoken_obstacle(spec: TokenizerSpec) -> str | None:
    """Why gigatoken cannot encode for `spec`, or None where it can; found out once a process, by making an encoder."""
    try:
        with borrow_encoder(spec, "gigatoken"):
            return None
    except GigatokenUnfitError as error:
        return error.reason


@contextlib.contextmanager
def borrow_encoder(spec: TokenizerSpec, engine: Engine) -> Iterator[Encoder]:
    """An encoder that no other thread uses meanwhile."""
    key = (spec, engine)
    with _lock:
        idle = _idle.setdefault(key, [])
        encoder = idle.pop() if idle else None
    if encoder is None:
        encoder = make_encoder(tokenizer_file(spec), engine, spec.special_tokens)
    try:
        yield encoder
    finally:
        with _lock:
            idle.append(encoder)


def token_counts(tokenizer: TokenizerSpec, engine: Engine, texts: pa.LargeStringArray) -> npt.NDArray[np.int64]:
    """How many tokens each document makes: int64 [documents].

    Raises:
        BroetchenError: the tokenizer cannot be loaded, or has no tokens for some of the text.
    """
    if not len(texts):
        return np.empty(0, np.int64)
    with borrow_encoder(tokenizer, engine) as encoder:
        return np.diff(encoder.encode(texts).offsets)


def encodable(spec: TokenizerSpec, batch: TextBatch, *, first_row: int | None = None) -> TextBatch:
    """A batch without the documents that cannot be encoded (`transforms.encoding.long_documents.without_too_long`)."""
    return without_too_long(batch, tokenizer_file(spec), spec.special_tokens, first_row=first_row)


def choose_engine(
    what: str, tokenizer: TokenizerSpec, wanted: Engine, samples: Iterable[tuple[pa.LargeStringArray, Encoded]]
) -> tuple[ChosenEngine, str | None]:
    """The engine to encode with, and why "auto" did not get gigatoken, to stand after its name; None where it did.

    Args:
        what: what is encoded or encodes, as it begins an error's message.
        tokenizer: the one that encodes.
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


def reference_share(spec: TokenizerSpec, texts: pa.LargeStringArray) -> float:
    """The share of the bytes of texts that the reference encodes where gigatoken is the engine.

    Raises:
        GigatokenUnfitError: gigatoken cannot be used.
    """
    with borrow_encoder(spec, "gigatoken") as encoder:
        assert isinstance(encoder, GigatokenEncoder)
        before = encoder.reference_bytes
        encoder.encode(texts)
        return (encoder.reference_bytes - before) / max(1, int(pc.sum(pc.binary_length(texts)).as_py() or 0))


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
