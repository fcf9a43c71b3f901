"""Encoders kept per process and lent to one thread at a time.

An encoder takes a quarter of a second and some 100 MB to make, and a pipeline has several steps that encode, each with
a DoFn instance per thread. They share these.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator

import pyarrow as pa

from transforms.encoders import Encoder, make_encoder
from transforms.errors import BroetchenError
from transforms.gigatoken_input import GigatokenUnfitError
from transforms.tokenizer_file import TokenizerFile, load_tokenizer
from transforms.tokenizer_spec import Engine, TokenizerSpec

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
    """Spares this process to load what it has loaded already, from another place."""
    assert tokenizer.sha256 == spec.sha256
    with _lock:
        _tokenizers[spec] = tokenizer


def warm_encoder(spec: TokenizerSpec, engine: Engine) -> None:
    """Makes the encoder that this process is likely to need, before it is needed; what is wrong with it shows then."""
    with (
        contextlib.suppress(BroetchenError),
        borrow_encoder(spec, "gigatoken" if engine == "auto" else engine) as encoder,
    ):
        encoder.encode(pa.array(["Käse"], pa.large_string()))


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
