"""Trusts no engine for ever: a probe when a process begins to encode, and now and then a document, by the reference.

A fast engine may err on one machine only, or on text that no test has held. So each process encodes a fixed probe
first, and while a shard is encoded, one document in some ten thousand, chosen by a hash of where it lies, is encoded
again by `tokenizers`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from transforms.encoding.pool import borrow_encoder
from transforms.errors import BroetchenError
from transforms.segments.encoded import Encoded, first_difference
from transforms.texts import text_array, text_buffers
from transforms.tokenizer.spec import ChosenEngine, TokenizerSpec

ONE_IN = 10_000
"""About one of so many documents is encoded again."""

_PIECE_BYTES = 64 << 10
_CONTINUATION, _CONTINUES = 0xC0, 0x80  # of a character in UTF-8: the two high bits, and their value

_PROBE = (
    "Die Brötchen kosteten 1,20 € – früher 90 Pfennig; heute früh waren's 2.750.000 Stück!",
    "The quick brown fox jumps over the lazy dog. It's 2024-02-29T23:59:60Z, isn't it?",
    "def f(x):\n\treturn {k: v for k, v in x.items() if k != '__init__'}  # ok\n\n\n",
    "Straße, Übergrößenträger, Maßstab; naïve façade, Ångström, œuvre, ﬁn, x², ½ l, № 5, …",
    "日本語の文章。Привет, мир! مرحبا بالعالم שלום नमस्ते 한국어 ภาษาไทย",
    "  zwei  Leerzeichen\u00a0und ein geschütztes,\u2009schmale\u202fauch\r\n\ttab \u3000 \ufeff\u200b|",
    "😀👩‍👩‍👧‍👦🇩🇪👍🏽 e\u0301 a\u0308 \U00018dc3-s \U0001e036 <|eos|> <s> </s> [INST]",
    "https://example.org/a?b=c&d=%20#e 192.168.0.1 0x1F 1e-9 AAAAAAAAAAAAAAAA aaaaaaaaaaaaaaaab",
)


class EnginesDifferError(BroetchenError):
    """An engine gave other ids than the reference; `engine` is its name with its version, as `engine_version`."""

    def __init__(self, engine: str, message: str) -> None:
        super().__init__(message)
        self.engine = engine


def engine_version(engine: ChosenEngine) -> str:
    """An engine's name with its installed version, as "gigatoken 0.10.0"."""
    return f"{engine} {importlib.metadata.version(engine)}"


def probe_digest(tokenizer: TokenizerSpec, engine: ChosenEngine) -> str:
    """SHA-256 of the ids of a fixed text of many kinds, by the engine in this process."""
    digest = hashlib.sha256()
    with borrow_encoder(tokenizer, engine) as encoder:
        for text in _PROBE:
            try:
                ids = encoder.encode(pa.array([text], pa.large_string())).ids.astype("<u4").tobytes()
            except BroetchenError:  # A tokenizer may have no tokens for some of it.
                ids = b"none"
            digest.update(len(ids).to_bytes(4, "little") + ids)
    return digest.hexdigest()


@functools.cache
def check_probe(tokenizer: TokenizerSpec, engine: ChosenEngine, expected: str) -> None:
    """Checks, once a process, that the engine encodes the probe as the plan's process did by `tokenizers`.

    Raises:
        EnginesDifferError: it does not.
    """
    if probe_digest(tokenizer, engine) != expected:
        name = engine_version(engine)
        raise EnginesDifferError(
            name,
            f"{name} gives other ids on this machine than tokenizers gave where the build was planned; install the "
            "same versions on all machines, or build with --engine tokenizers",
        )


def check_some(
    tokenizer: TokenizerSpec,
    engine: ChosenEngine,
    where: tuple[str, int],
    rows: npt.NDArray[np.int64],
    texts: pa.LargeStringArray,
    encoded: Encoded,
) -> None:
    """Encodes one document in `ONE_IN` again by `tokenizers`, of a long one the first 64 KiB, and compares the ids.

    Args:
        tokenizer: the one that has encoded.
        engine: by which engine; the reference itself is not checked.
        where: path and number of the row group that the documents are from.
        rows: int64 [documents], the number of each in its row group.
        texts: the documents.
        encoded: their ids, without BOS and EOS.

    Raises:
        EnginesDifferError: the ids differ; the message names the document.
    """
    if engine == "tokenizers":
        return
    chosen = np.flatnonzero(_chosen(where, rows))
    if not len(chosen):
        return
    data, offsets = text_buffers(texts)
    for document in chosen.tolist():
        start, end = int(offsets[document]), int(offsets[document + 1])
        piece = _piece(data, start, end)
        if len(piece[0]) == end - start:
            ids = encoded.ids[encoded.offsets[document] : encoded.offsets[document + 1]]
            by_engine = Encoded(ids, np.array([0, len(ids)]))
        else:
            with borrow_encoder(tokenizer, engine) as fast:
                by_engine = fast.encode(text_array(*piece))
        with borrow_encoder(tokenizer, "tokenizers") as reference:
            difference = first_difference(reference.encode(text_array(*piece)), by_engine)
        if difference is not None:
            name = engine_version(engine)
            raise EnginesDifferError(
                name,
                f"{where[0]}: row group {where[1]}, row {rows[document]} (from 0): {name} and tokenizers give other "
                f"ids ({name} {difference.replace('in document 0, position', 'at position')}); please report it "
                "with the tokenizer and this row. Run the same command again: what this engine has encoded is done "
                "again by tokenizers",
            )


def _chosen(where: tuple[str, int], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each row is one of those to look at: the same ones in every run."""
    mixed = rows.astype(np.uint64) + np.uint64(xxhash.xxh3_64_intdigest(f"{where[0]}:{where[1]}".encode()))
    # The finalizer of MurmurHash3, by which each bit of the row decides about each bit of the hash.
    for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53), (33, 1)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    chosen: npt.NDArray[np.bool_] = mixed % np.uint64(ONE_IN) == 0
    return chosen


def _piece(data: npt.NDArray[np.uint8], start: int, end: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The first 64 KiB of a document, to the end of a character, as an array of one text."""
    if end - start > _PIECE_BYTES:
        end = start + _PIECE_BYTES
        while data[end] & _CONTINUATION == _CONTINUES:
            end -= 1
    return data[start:end], np.array([0, end - start], np.int64)
