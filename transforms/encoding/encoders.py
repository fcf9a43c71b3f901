"""Encoders: batches of documents in, subtoken ids out, by one of two engines that give the same ids.

`tokenizers` is the reference: its ids are right by definition. gigatoken encodes tens of times faster, and is
used where it provably gives the same, which takes some care:

* It is given only tokenizers that the tests have compared, and of these only a part (`transforms.encoding.gigatoken`).
* Normalization to NFC or NFKC is done here, before the engine, which knows no NFKC.
* Added tokens are taken out of the engine's vocabulary, and found before it (`transforms.segments.added_tokens`).
* The surroundings of a code point on which the engines' Unicode tables may differ
  (`transforms.segments.code_points`) go to the reference, cut out of the document (`transforms.segments.segments`).
* Numbers that are split in pairs or single digits are put together, or taken apart, around it
  (`transforms.segments.digits`).

Neither engine adds the special tokens of a template post-processor: which ids begin and end a document is the mix
config's to say. An encoder by gigatoken is for one thread at a time, and must be made in the process that uses it:
gigatoken stops working in a forked child.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import psutil
import pyarrow as pa
from numpy.typing import NDArray

from transforms.encoding.gigatoken import check_told_apart, gigatoken_input
from transforms.encoding.long_documents import Cuts, any_long, piece_ends, where_to_cut, without_spaces
from transforms.encoding.sentencepiece import Prefix, with_prefixes
from transforms.encoding.unfit import GigatokenUnfitError
from transforms.errors import BroetchenError, UsageError, one_line
from transforms.segments import code_points
from transforms.segments.added_tokens import AddedTokens
from transforms.segments.digits import DigitPairs, numbers_together, set_digits_apart
from transforms.segments.encoded import Encoded, concatenated, interleaved, offsets_of
from transforms.segments.segments import FAST, KNOWN, REFERENCE, Segments, windows
from transforms.texts import text_array, text_buffers
from transforms.tokenizer.file import TokenizerFile, new_tokenizer
from transforms.tokenizer.spec import Engine, SpecialTokens

_LOGGER = logging.getLogger(__name__)

# A gigatoken engine remembers every pretoken that it has met, without a limit: some 10 bytes for each byte of text in
# which no word comes twice. So it is made again once the process has grown by this much while it encoded; and as its
# table grows by doubling, a process was seen to need up to 200 MB for an engine with this bound.
CACHE_BOUND_BYTES = 48 << 20

# Text that goes to the engine in one call, so that memory is looked at often enough.
_CALL_BYTES = 2 << 20


class Encoder(Protocol):
    """The interface of every engine."""

    name: str  # of the engine: "tokenizers", "gigatoken"

    def encode(self, texts: pa.LargeStringArray) -> Encoded:
        """The ids of each document: valid UTF-8, no nulls; an empty one has no ids."""
        ...


class ReferenceEncoder:
    """Encodes with `tokenizers`.

    Args:
        tokenizer: the tokenizer; truncation and padding that its file may set are switched off.
        special_tokens: "text" encodes the names of special tokens as any other text, so that a document cannot forge an
            end of document; "token" as the tokens that they name. Added tokens that are not special are tokens always.

    Raises:
        UsageError: see `transforms.encoding.gigatoken.check_told_apart`.
    """

    name = "tokenizers"

    def __init__(self, tokenizer: TokenizerFile, special_tokens: SpecialTokens) -> None:
        self._tokenizer = new_tokenizer(tokenizer.json)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = special_tokens == "text"
        if (normalizer := self._tokenizer.normalizer) is not None:
            added = list(self._tokenizer.get_added_tokens_decoder().values())
            text = frozenset(token.content for token in added if special_tokens == "text" and token.special)
            told = [{"content": token.content, "normalized": token.normalized} for token in added]
            check_told_apart(told, text, normalizer.normalize_str)
        self._file, self._special_tokens = tokenizer, special_tokens

    def encode(self, texts: pa.LargeStringArray) -> Encoded:
        """See `Encoder.encode`.

        Raises:
            BroetchenError: the tokenizer has no tokens for some of the text, or a document is too long for it.
        """
        cuts = functools.partial(where_to_cut, self._file, self._special_tokens)
        return _by_pieces(texts, cuts, self._encode_pieces)

    def id_of(self, token: str) -> int:
        """The id of a token in the vocabulary."""
        token_id = self._tokenizer.token_to_id(token)
        assert token_id is not None
        return token_id

    def _encode_pieces(self, texts: pa.LargeStringArray) -> Encoded:
        return concatenated([self._encode_some(texts.slice(*part)) for part in _calls(texts)])

    def _encode_some(self, texts: pa.LargeStringArray) -> Encoded:
        try:
            encodings = self._tokenizer.encode_batch_fast(texts.to_pylist(), add_special_tokens=False)
        except BaseException as error:
            # It raises plain Exception; and where Rust panics, a class beside it, as for added tokens that overlap by
            # the white space that they take.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise BroetchenError(
                f"tokenizers cannot encode some of the text ({one_line(error)}); use a tokenizer that has tokens for "
                "all of it, such as byte-level BPE"
            ) from error
        return Encoded.of(encoding.ids for encoding in encodings)


class GigatokenEncoder:
    """Encodes with gigatoken, and with the reference the text that gigatoken might encode differently.

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
        self._input = gigatoken_input(tokenizer, special_tokens)
        self._engine: Any = _new_engine(self._input.json)
        self._raw_tokens, self._normalized_tokens = self._added_tokens()
        self._digits = np.empty(0, np.uint32)
        self._pairs: DigitPairs | None = None
        if self._input.digits is not None:
            reference = self._reference
            self._digits = reference.encode(pa.array("0123456789", pa.large_string())).ids
        if self._input.digits == "pairs":
            numbers = reference.encode(pa.array([f"{number:02}" for number in range(100)], pa.large_string()))
            joined = np.diff(numbers.offsets) == 1
            pairs = np.where(joined, numbers.ids[numbers.offsets[:-1]].astype(np.int64), -1)
            self._pairs = DigitPairs(self._digits, pairs, self._input.largest_id)
        self._growth = 0
        self._process = psutil.Process()
        self.reference_bytes = 0
        """The bytes of all texts so far that the reference has encoded."""

    def encode(self, texts: pa.LargeStringArray) -> Encoded:
        """See `Encoder.encode`. Memory for about 2 MB of text at a time, or one piece, beside the result.

        Raises:
            BroetchenError: a document is too long.
        """
        return _by_pieces(texts, lambda: self._input.cuts, self._encode_pieces)

    def _encode_pieces(self, texts: pa.LargeStringArray) -> Encoded:
        data, offsets = text_buffers(texts)
        parts: list[Encoded] = []
        for start, documents in _calls(texts):
            part = offsets[start : start + documents + 1]
            parts.append(self._encode_some(data[part[0] : part[-1]], part - part[0]))
        return concatenated(parts)

    def _added_tokens(self) -> tuple[AddedTokens | None, AddedTokens | None]:
        """The added tokens to look for before and after normalization."""
        wanted = (self._input.raw_tokens, None), (self._input.normalized_tokens, self._input.form)
        if not any(tokens for tokens, _ in wanted):
            return None, None
        # `tokenizers` decides their ids, whatever the file says.
        names = self._input.names
        if len({self._reference.id_of(name) for name in names}) < len(names):
            raise GigatokenUnfitError("needs an id for each added token, and two of this tokenizer's have one")
        raw, normalized = (
            AddedTokens(tokens, self._reference.id_of, self._input.text_tokens, form) if tokens else None
            for tokens, form in wanted
        )
        return raw, normalized

    def _encode_some(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Encoded:
        segments = Segments(offsets)
        if self._raw_tokens is not None:
            self._take_tokens(self._raw_tokens, data, segments)
        if self._input.prefix is not None:
            return self._encode_sentencepiece(data, segments, self._input.prefix)
        text = data
        if len(data) and data.max() >= 0x80:
            positions, characters = code_points.non_ascii(data)
            unlike = positions[~code_points.agreed()[characters]]
            if self._input.digits == "pairs":
                unlike = np.union1d(unlike, numbers_together(data, positions, characters))
            if len(unlike):
                segments.insert(windows(data, segments, unlike, cut=self._input.cuts == "before"), REFERENCE)
            segments.keep_raw()
            if self._input.form is not None:
                text, segments.bounds = code_points.normalize(
                    data, segments.bounds, positions, characters, self._input.form
                )
        else:
            segments.keep_raw()
        if self._normalized_tokens is not None:
            self._take_tokens(self._normalized_tokens, text, segments)
        if self._input.digits == "single":
            set_digits_apart(
                text, segments, *code_points.non_ascii(text), self._digits, unmerged=self._input.unmerged_digits
            )
        return self._encode_segments(text, data, segments)

    def _encode_sentencepiece(self, data: NDArray[np.uint8], segments: Segments, prefix: Prefix) -> Encoded:
        if self._normalized_tokens is not None:
            self._take_tokens(self._normalized_tokens, data, segments)
        segments.keep_raw()
        text = data
        if prefix != "none":
            text, segments.bounds = with_prefixes(data, segments, prefix)
        return self._encode_segments(text, data, segments)

    def _take_tokens(self, tokens: AddedTokens, text: NDArray[np.uint8], segments: Segments) -> None:
        spans, ids = tokens.find(text, segments)
        if self._input.whole_documents:
            segments.give_documents(spans[0])
        else:
            segments.insert(spans, KNOWN, ids)

    def _encode_segments(self, text: NDArray[np.uint8], data: NDArray[np.uint8], segments: Segments) -> Encoded:
        """The ids of all segments, put together: of `text` the fast ones, and of `data`, as it was, the reference's."""
        if segments.all_fast:
            encoded = self._encode_fast(text, segments.bounds)
            return Encoded(encoded.ids, encoded.offsets[segments.first])
        fast = segments.kinds == FAST
        sizes = segments.lengths()
        parts = {FAST: self._encode_fast(text[np.repeat(fast, sizes)], offsets_of(sizes[fast]))}
        starts, ends = segments.raw(REFERENCE)
        self.reference_bytes += int((ends - starts).sum())
        if len(starts):
            pieces = [data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
            parts[REFERENCE] = self._reference.encode(text_array(np.concatenate(pieces), offsets_of(ends - starts)))
        parts[KNOWN] = Encoded(segments.known, np.arange(len(segments.known) + 1))
        encoded = interleaved(segments.kinds, parts)
        return Encoded(encoded.ids, encoded.offsets[segments.first])

    @functools.cached_property
    def _reference(self) -> ReferenceEncoder:
        return reference_encoder(self._file, self._special_tokens)

    def _encode_fast(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Encoded:
        if len(offsets) < 2:
            return Encoded(np.empty(0, np.uint32), np.zeros(1, np.int64))
        if self._engine is None:
            self._engine = _new_engine(self._input.json)
        before = self._process.memory_info().rss
        if self._input.prefix is None:
            encoded = _encode_batch(self._engine, data, offsets)
        else:
            encoded = _encode_each(self._engine, data, offsets)
        # Other threads may allocate meanwhile: then the engine is made again sooner, which costs only time.
        self._growth += max(0, self._process.memory_info().rss - before - encoded.ids.nbytes)
        if self._growth > CACHE_BOUND_BYTES:
            self._engine = None  # which frees its memory
            self._growth = 0
        return encoded if self._pairs is None else self._pairs.join(encoded)


@functools.lru_cache(maxsize=4)
def reference_encoder(tokenizer: TokenizerFile, special_tokens: SpecialTokens) -> ReferenceEncoder:
    """The reference of this process, which any number of threads may use: it takes as long to make as to load."""
    return ReferenceEncoder(tokenizer, special_tokens)


def make_encoder(tokenizer: TokenizerFile, engine: Engine, special_tokens: SpecialTokens) -> Encoder:
    """An encoder by the engine asked for; "auto" takes gigatoken where it can be used, and else warns and says why not.

    Raises:
        UsageError: the engine is "gigatoken" and cannot be used with this tokenizer; says why.
    """
    if engine == "tokenizers":
        return reference_encoder(tokenizer, special_tokens)
    try:
        return GigatokenEncoder(tokenizer, special_tokens)
    except UsageError as error:
        if engine == "gigatoken":
            raise
        _LOGGER.warning("encoding with tokenizers, which is slower: %s", error)
        return reference_encoder(tokenizer, special_tokens)


def _encode_batch(engine: Any, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Encoded:
    layout = engine.encode_batch(_byte_strings(data, offsets), parallel=False).layout
    starts: NDArray[np.int64] = layout.offsets.data
    ids: NDArray[np.uint32] = layout.content.data[starts[0] : starts[-1]]
    return Encoded(ids, starts - starts[0])


def _encode_each(engine: Any, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Encoded:
    """Each text by itself: with BPE in SentencePiece's manner gigatoken keeps a cache for that alone."""
    view = memoryview(data)
    found = [engine.encode(bytes(view[start:end])) for start, end in itertools.pairwise(offsets.tolist())]
    return Encoded(np.concatenate(found), offsets_of([len(ids) for ids in found]))


def _byte_strings(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Any:
    """Strings of bytes as gigatoken takes them without a copy."""
    import awkward as ak  # half a second that the command line is spared

    content = ak.contents.NumpyArray(np.ascontiguousarray(data), parameters={"__array__": "byte"})
    index = ak.index.Index64(np.ascontiguousarray(offsets, np.int64))
    return ak.Array(ak.contents.ListOffsetArray(index, content, parameters={"__array__": "bytestring"}))


def _new_engine(tokenizer_json: str) -> Any:
    import gigatoken  # and awkward with it: half a second that the command line is spared

    try:
        return gigatoken.Tokenizer.from_json(tokenizer_json)
    except RuntimeError as error:
        raise GigatokenUnfitError(f"cannot load it: {str(error).splitlines()[0]}") from error


def _calls(texts: pa.LargeStringArray) -> Iterator[tuple[int, int]]:
    """Runs of documents that go to an engine in one call, as (first, how many); one even if there are none."""
    _, offsets = text_buffers(texts)
    start = 0
    while True:
        stop = int(np.searchsorted(offsets, offsets[start] + _CALL_BYTES, side="right")) - 1
        stop = min(max(stop, start + 1), len(texts))
        yield start, stop - start
        if stop >= len(texts):
            return
        start = stop


def _by_pieces(
    texts: pa.LargeStringArray, where: Callable[[], Cuts], encode: Callable[[pa.LargeStringArray], Encoded]
) -> Encoded:
    """Encodes long documents in pieces, where that is the same, and puts their ids together again."""
    data, offsets = text_buffers(texts)
    if not any_long(offsets):
        return encode(texts)
    cuts = where()
    ends = piece_ends(data, offsets, cut=cuts != "nowhere")
    data, bounds = without_spaces(data, offsets, ends) if cuts == "over" else (data, ends)
    encoded = encode(text_array(data, bounds))
    return Encoded(encoded.ids, encoded.offsets[np.searchsorted(ends, offsets)])
