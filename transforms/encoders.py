"""Encoders: batches of documents in, subtoken ids out, by one of two engines that give the same ids.

`tokenizers` is the reference: whatever it gives is right by definition. gigatoken encodes tens of times faster, and is
used where it provably gives the same. That takes some care, since it reads less of a tokenizer.json than `tokenizers`
does and ignores much of what it does not know:

* Only model, pre-tokenizer and normalizer settings that the tests have compared are accepted (`GigatokenUnfitError`).
* Normalization to NFC or NFKC is done here, before the engine, which knows no NFKC.
* Added tokens are taken out of the engine's vocabulary, and a document that holds the text of one goes to the
  reference, which alone decides how it is matched.
* A document that holds a code point on which the engines' Unicode tables may differ (`transforms.code_points`) goes to
  the reference too.

Neither engine adds the special tokens of a template post-processor: which ids begin and end a document is the mix
config's to say. An encoder is for one thread at a time, and must be made in the process that uses it: gigatoken stops
working in a forked child.
"""

from __future__ import annotations

import functools
import json
import logging
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from transforms import code_points
from transforms.errors import BroetchenError, UsageError, one_line
from transforms.long_documents import can_be_cut, piece_ends
from transforms.tokenizer_file import TokenizerFile

_LOGGER = logging.getLogger(__name__)

SpecialTokens = Literal["text", "token"]

# A gigatoken engine remembers every pretoken that it has met, without a limit: some 10 bytes for each byte of text in
# which no word comes twice. So it is made anew once the process has grown by this much while it encoded; and as its
# table grows by doubling, a process was seen to need up to 200 MB for an engine with this bound.
CACHE_BOUND_BYTES = 48 << 20

# gigatoken was seen to take some 57 bytes for each id up to the largest, whether there is a token for it or not, and
# to abort the process where it gets no memory.
_GIGATOKEN_LARGEST_ID = 1 << 22

# Text that goes to the engine in one call, so that memory is looked at often enough.
_CALL_BYTES = 2 << 20

# The `Split` patterns of the pre-tokenizer that the tests compare, by the names that people know them by. gigatoken
# takes others for equal to these that `tokenizers` treats differently, such as the possessive form of cl100k's.
PROVEN_SPLITS: dict[str, tuple[str, ...]] = {
    "gpt2": (r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",),
    "cl100k": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|"
        r"\s+(?!\S)|\s+",
    ),
    "llama3": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
        r"\s+(?!\S)|\s+",
    ),
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
        r"\s+(?!\S)|\s+",
    ),
    "qwen3.5": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|"
        r"\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "o200k": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "nemotron": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
        r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "deepseek3": (
        r"\p{N}{1,3}",
        "[一-龥぀-ゟ゠-ヿ]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
        " ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    ),
}


@dataclass(frozen=True)
class Encoded:
    """The ids of a batch of documents.

    Attributes:
        ids: uint32, shape (tokens,), all documents' ids one after another.
        offsets: int64, shape (documents + 1,), beginning with 0; document i is `ids[offsets[i]:offsets[i + 1]]`.
    """

    ids: NDArray[np.uint32]
    offsets: NDArray[np.int64]


class Encoder(Protocol):
    """What both engines do."""

    name: str  # "tokenizers" or "gigatoken"

    def encode(self, texts: pa.LargeStringArray) -> Encoded:
        """The ids of each document: valid UTF-8, no nulls; an empty one has no ids."""
        ...


class ReferenceEncoder:
    """Encodes with `tokenizers`.

    Args:
        tokenizer: the tokenizer; truncation and padding that its file may set are switched off.
        special_tokens: "text" encodes the names of special tokens as any other text, so that a document cannot forge an
            end of document; "token" as the tokens that they name. Added tokens that are not special are tokens always.
    """

    name = "tokenizers"

    def __init__(self, tokenizer: TokenizerFile, special_tokens: SpecialTokens) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.json)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = special_tokens == "text"
        try:
            self._cut = _simplify(tokenizer, special_tokens).can_be_cut
        except _UnsupportedError:
            self._cut = False

    def encode(self, texts: pa.LargeStringArray) -> Encoded:
        """See `Encoder.encode`.

        Raises:
            BroetchenError: the tokenizer has no tokens for some of the text, or a document is too long for it.
        """
        return _by_pieces(texts, self._cut, self._encode_pieces)

    def _encode_pieces(self, texts: pa.LargeStringArray) -> Encoded:
        parts = [self._encode_some(texts.slice(*part)) for part in _calls(texts)]
        return parts[0] if len(parts) == 1 else _concatenate(parts)

    def _encode_some(self, texts: pa.LargeStringArray) -> Encoded:
        try:
            encodings = self._tokenizer.encode_batch_fast(texts.to_pylist(), add_special_tokens=False)
        except Exception as error:  # tokenizers raises plain Exception
            raise BroetchenError(
                f"tokenizers cannot encode some of the text ({one_line(error)}); use a tokenizer that has tokens for "
                "all of it, such as byte-level BPE"
            ) from error
        ids = [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]
        return Encoded(np.concatenate([_NO_IDS, *ids]), _offsets([len(some) for some in ids]))


class GigatokenUnfitError(UsageError):
    """Gigatoken cannot be used with a tokenizer; `reason` ("does not …") stands after its name."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"gigatoken {reason}; use the engine `tokenizers`, or `auto`")
        self.reason = reason


class GigatokenEncoder:
    """Encodes with gigatoken, and with the reference what gigatoken might encode differently.

    Args:
        tokenizer: the tokenizer.
        special_tokens: as for `ReferenceEncoder`.

    Raises:
        GigatokenUnfitError: gigatoken cannot be used with this tokenizer; says why.
    """

    name = "gigatoken"

    def __init__(self, tokenizer: TokenizerFile, special_tokens: SpecialTokens) -> None:
        self._file = tokenizer
        self._special_tokens = special_tokens
        try:
            self._simple = _simplify(tokenizer, special_tokens)
            self._engine: Any = _new_engine(self._simple.json)
        except _UnsupportedError as error:
            raise GigatokenUnfitError(str(error)) from error
        self._growth = 0
        self._process = psutil.Process()

    def encode(self, texts: pa.LargeStringArray) -> Encoded:
        """See `Encoder.encode`. Memory for about 2 MB of text at a time, or one piece, beside the result.

        Raises:
            BroetchenError: a document is too long.
        """
        return _by_pieces(texts, self._simple.can_be_cut, self._encode_pieces)

    def _encode_pieces(self, texts: pa.LargeStringArray) -> Encoded:
        data, offsets = _buffers(texts)
        parts: list[Encoded] = []
        for start, documents in _calls(texts):
            part = offsets[start : start + documents + 1]
            parts.append(self._encode_some(data[part[0] : part[-1]], part - part[0]))
        return parts[0] if len(parts) == 1 else _concatenate(parts)

    def _encode_some(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Encoded:
        texts = _as_arrow(data, offsets)
        by_reference = np.zeros(len(texts), dtype=np.bool_)
        normalized = texts
        if len(data) and data.max() >= 0x80:
            positions, characters = code_points.non_ascii(data)
            unknown = positions[~code_points.agreed()[characters]]
            by_reference[code_points.documents_at(offsets, unknown)] = True
            if self._simple.form is not None:
                normalized = _as_arrow(*code_points.normalize(data, offsets, positions, characters, self._simple.form))
        for pattern, where in ((self._simple.raw_tokens, texts), (self._simple.normalized_tokens, normalized)):
            if pattern is not None:
                by_reference |= pc.match_substring_regex(where, pattern).to_numpy(zero_copy_only=False)
        if not by_reference.any():
            return self._encode_fast(normalized)
        fast = self._encode_fast(normalized.filter(pa.array(~by_reference)))
        return _interleave(by_reference, self._reference.encode(texts.filter(pa.array(by_reference))), fast)

    @functools.cached_property
    def _reference(self) -> ReferenceEncoder:
        return ReferenceEncoder(self._file, self._special_tokens)

    def _encode_fast(self, texts: pa.LargeStringArray) -> Encoded:
        if self._engine is None:
            self._engine = _new_engine(self._simple.json)
        before = self._process.memory_info().rss
        # A list costs no more than a view of the Arrow array here, where documents are long.
        layout = self._engine.encode_batch(texts.cast(pa.large_binary()).to_pylist(), parallel=False).layout
        offsets: NDArray[np.int64] = layout.offsets.data
        ids: NDArray[np.uint32] = layout.content.data[offsets[0] : offsets[-1]]
        # Other threads may allocate meanwhile: then the engine is made anew sooner, which costs only time.
        self._growth += max(0, self._process.memory_info().rss - before - ids.nbytes)
        if self._growth > CACHE_BOUND_BYTES:
            self._engine = None  # which frees its memory
            self._growth = 0
        return Encoded(ids, offsets - offsets[0])


def make_encoder(
    tokenizer: TokenizerFile, engine: Literal["auto", "tokenizers", "gigatoken"], special_tokens: SpecialTokens
) -> Encoder:
    """An encoder by the engine asked for; "auto" takes gigatoken where it can be used, and else warns and says why not.

    Raises:
        UsageError: the engine is "gigatoken" and cannot be used with this tokenizer; says why.
    """
    if engine == "tokenizers":
        return ReferenceEncoder(tokenizer, special_tokens)
    try:
        return GigatokenEncoder(tokenizer, special_tokens)
    except UsageError as error:
        if engine == "gigatoken":
            raise
        _LOGGER.warning("encoding with tokenizers, which is slower: %s", error)
        return ReferenceEncoder(tokenizer, special_tokens)


def first_difference(expected: Encoded, found: Encoded) -> str | None:
    """Where two encodings of the same documents first differ, to stand after an engine's name; None if they do not.

    >>> def encoded(*ids): return Encoded(np.array(ids, np.uint32), np.array([0, 1, len(ids)]))
    >>> first_difference(encoded(5, 6, 7), encoded(5, 6, 8))
    'gives other ids in document 1, position 1: 8, not 7'
    """
    if np.array_equal(expected.ids, found.ids) and np.array_equal(expected.offsets, found.offsets):
        return None
    counts = [len(some.offsets) - 1 for some in (found, expected)]
    if counts[0] != counts[1]:
        return f"gives ids for {counts[0]} documents, not {counts[1]}"
    for document in range(counts[0]):
        got, want = (some.ids[some.offsets[document] : some.offsets[document + 1]] for some in (found, expected))
        if not np.array_equal(got, want):
            break
    common = min(len(got), len(want))
    position = int(np.append(np.flatnonzero(got[:common] != want[:common]), common)[0])
    shown = [str(ids[position]) if position < len(ids) else "the end" for ids in (got, want)]
    return f"gives other ids in document {document}, position {position}: {shown[0]}, not {shown[1]}"


class _UnsupportedError(Exception):
    """Why gigatoken cannot be used, in words that stand after its name."""


@dataclass(frozen=True)
class _Simplified:
    """What is left of a tokenizer for gigatoken, and what is to be done outside of it."""

    json: str  # a tokenizer.json without normalizer, added tokens and whatever no text can reach
    form: code_points.Form | None  # normalization to do first
    raw_tokens: str | None  # RE2 pattern: documents that match go to the reference
    normalized_tokens: str | None  # the same, for documents after normalization
    can_be_cut: bool  # whether long documents can be encoded in pieces


def _simplify(tokenizer: TokenizerFile, special_tokens: SpecialTokens) -> _Simplified:
    whole = json.loads(tokenizer.json)
    form = _form(whole.get("normalizer"))
    _check_pre_tokenizer(whole.get("pre_tokenizer"))
    model = _simplify_model(whole["model"])
    # `tokenizers` takes special tokens for plain text where it is told to; all other added tokens it always looks for.
    added = [
        token
        for token in whole.get("added_tokens") or []
        if token["content"] and not (special_tokens == "text" and token["special"])
    ]
    return _Simplified(
        json=json.dumps(
            {"version": "1.0", "added_tokens": [], "pre_tokenizer": whole["pre_tokenizer"], "model": model}
        ),
        form=form,
        raw_tokens=_pattern([token["content"] for token in added if not token["normalized"]]),
        normalized_tokens=_pattern(
            [
                unicodedata.normalize(form, token["content"]) if form else token["content"]
                for token in added
                if token["normalized"]
            ]
        ),
        can_be_cut=can_be_cut(added),
    )


def _form(normalizer: dict[str, Any] | None) -> code_points.Form | None:
    if normalizer is None:
        return None
    kind = normalizer["type"]
    if kind == "Sequence" and len(normalizer["normalizers"]) <= 1:
        return _form(next(iter(normalizer["normalizers"]), None))
    if kind == "NFC" or kind == "NFKC":
        return "NFC" if kind == "NFC" else "NFKC"
    raise _UnsupportedError(f"is not used with the normalizer {kind} of this tokenizer")


def _check_pre_tokenizer(pre_tokenizer: dict[str, Any] | None) -> None:
    """Raises _UnsupportedError unless this is GPT-2's splitting, or one of PROVEN_SPLITS, followed by byte-level."""
    if pre_tokenizer is None:
        raise _UnsupportedError("needs a pre-tokenizer, and this tokenizer has none")
    *splits, last = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    if last["type"] != "ByteLevel":
        raise _UnsupportedError(f"does not do the pre-tokenizer {last['type']} of this tokenizer")
    if pre_tokenizer["type"] == "ByteLevel":
        if not last.get("use_regex", True):
            raise _UnsupportedError(
                "always splits into words, and this tokenizer's ByteLevel does not (use_regex: false)"
            )
        return
    if last.get("use_regex", True) or last["add_prefix_space"]:
        raise _UnsupportedError("does not do ByteLevel with use_regex or add_prefix_space after other pre-tokenizers")
    patterns = []
    for split in splits:
        if split["type"] != "Split" or split["behavior"] != "Isolated" or split["invert"]:
            raise _UnsupportedError("does no pre-tokenizers before ByteLevel but Split, Isolated and not inverted")
        patterns.append(split["pattern"].get("Regex"))
    if tuple(patterns) not in PROVEN_SPLITS.values():
        raise _UnsupportedError(f"is not known to split as this tokenizer does, by {patterns}")


def _simplify_model(model: dict[str, Any]) -> dict[str, Any]:
    """The model without tokens that no text can reach, which gigatoken might mix up with others."""
    kind = model.get("type", "BPE")
    if kind != "BPE":
        raise _UnsupportedError(f"encodes byte-level BPE alone, and this tokenizer's model is {kind}")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise _UnsupportedError(f"does not do BPE with {key}, as this tokenizer sets")
    alphabet = frozenset(ByteLevel.alphabet())
    vocabulary: dict[str, int] = model["vocab"]
    if (largest := max(vocabulary.values(), default=0)) > _GIGATOKEN_LARGEST_ID:
        raise _UnsupportedError(f"takes memory for each id up to the largest, which is {largest:,} here")
    missing = len(alphabet - vocabulary.keys())
    if missing:
        raise _UnsupportedError(f"needs a token for each of the 256 bytes, and this vocabulary lacks {missing}")
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    made = [vocabulary["".join(pair)] for pair in pairs]
    # It ranks merges by the ids that they make, if those ascend: two that make the same would have the same rank.
    if len(set(made)) < len(made):
        raise _UnsupportedError("needs each merge to make another token, and two of this tokenizer's make the same")
    return {
        "type": "BPE",
        "ignore_merges": bool(model.get("ignore_merges")),
        "vocab": {token: token_id for token, token_id in vocabulary.items() if alphabet.issuperset(token)},
        "merges": [pair for pair in pairs if alphabet.issuperset("".join(pair))],
    }


def _pattern(tokens: list[str]) -> str | None:
    """An RE2 pattern that matches where one of the strings stands; None for no strings."""
    if not tokens:
        return None
    return "|".join("".join(f"\\x{{{ord(character):x}}}" for character in token) for token in tokens)


def _new_engine(tokenizer_json: str) -> Any:
    import gigatoken  # and awkward with it: half a second that the command line is spared

    try:
        return gigatoken.Tokenizer.from_json(tokenizer_json)
    except RuntimeError as error:
        raise _UnsupportedError(f"cannot load it: {str(error).splitlines()[0]}") from error


_NO_IDS = np.empty(0, dtype=np.uint32)


def _offsets(lengths: list[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _calls(texts: pa.LargeStringArray) -> Iterator[tuple[int, int]]:
    """Runs of documents that go to an engine in one call, as (first, how many); one even if there are none."""
    _, offsets = _buffers(texts)
    start = 0
    while True:
        stop = int(np.searchsorted(offsets, offsets[start] + _CALL_BYTES, side="right")) - 1
        stop = min(max(stop, start + 1), len(texts))
        yield start, stop - start
        if stop >= len(texts):
            return
        start = stop


def _by_pieces(texts: pa.LargeStringArray, cut: bool, encode: Callable[[pa.LargeStringArray], Encoded]) -> Encoded:
    """Encodes long documents in pieces, where that is the same, and puts their ids together again."""
    data, offsets = _buffers(texts)
    ends = piece_ends(data, offsets, cut=cut)
    if len(ends) == len(offsets):
        return encode(texts)
    encoded = encode(_as_arrow(data, ends))
    return Encoded(encoded.ids, encoded.offsets[np.searchsorted(ends, offsets)])


def _concatenate(parts: list[Encoded]) -> Encoded:
    return Encoded(
        np.concatenate([part.ids for part in parts]),
        _offsets(np.concatenate([np.diff(part.offsets) for part in parts])),
    )


def _interleave(first: NDArray[np.bool_], chosen: Encoded, others: Encoded) -> Encoded:
    """One batch of two: document i is the next of `chosen` where `first[i]`, else the next of `others`."""
    lengths = np.empty(len(first), dtype=np.int64)
    lengths[first] = np.diff(chosen.offsets)
    lengths[~first] = np.diff(others.offsets)
    ids = np.empty(lengths.sum(), dtype=np.uint32)
    of_chosen = np.repeat(first, lengths)
    ids[of_chosen] = chosen.ids
    ids[~of_chosen] = others.ids
    return Encoded(ids, _offsets(lengths))


def _buffers(texts: pa.LargeStringArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Data and offsets of an array, without copies; the offsets need not begin with 0."""
    _, offsets, data = texts.buffers()
    if offsets is None or data is None or not len(texts):  # as Arrow may leave them where there is no text
        return np.empty(0, dtype=np.uint8), np.zeros(len(texts) + 1, dtype=np.int64)
    return (
        np.frombuffer(data, dtype=np.uint8),
        np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1],
    )


def _as_arrow(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> pa.LargeStringArray:
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return cast("pa.LargeStringArray", pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers))
