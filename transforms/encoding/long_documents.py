"""Encodes long documents in pieces, where it is certain that the pieces give the ids of the whole.

`tokenizers` takes some 200 bytes of memory for each byte of a document, so that one of 200 MB would take 40 GB. Between
a letter, of any script, or an ASCII digit and a space with another after it, most pre-tokenizers split, whatever stands
before and after: none of their patterns matches a letter or digit with a space after it, or looks behind. Most
normalizers compose nothing there either, and no prefix space is added to text that begins with a space.
"""

from __future__ import annotations

import functools
import itertools
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.encoding.sentencepiece import SentencePieceForm, is_sentencepiece, sentencepiece_form
from transforms.encoding.splits import SPLITS_AT_CUTS, SPLITS_OF_CHARACTERS
from transforms.encoding.unfit import GigatokenUnfitError
from transforms.errors import BroetchenError
from transforms.quantities import format_size
from transforms.segments.cuts import first_cut, stands_at_cuts
from transforms.texts import TOO_LONG, TextBatch, leave_out, text_buffers
from transforms.tokenizer.file import TokenizerFile
from transforms.tokenizer.spec import SpecialTokens

PIECE_BYTES = 1 << 20
"""About how long the pieces are."""

LARGEST_PIECE = 16 << 20
"""A piece that cannot be cut and is longer than this is not encoded: it would take gigabytes."""

_NORMALIZERS: Final = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer"})
_AT_CUTS: Final = frozenset({"Whitespace", "WhitespaceSplit", "BertPreTokenizer"})
_OF_CHARACTERS: Final = frozenset({"Digits", "Punctuation"})


Cuts = Literal["nowhere", "before", "over"]
"""Where documents can be cut: nowhere; before the space at a cut; or over it, so that no part has it, where the
tokenizer puts one before each."""


@functools.lru_cache(maxsize=4)  # a tenth of a second for a large vocabulary
def where_to_cut(tokenizer: TokenizerFile, special_tokens: SpecialTokens) -> Cuts:
    """Where long documents can be cut to be encoded in pieces with a tokenizer, by whatever engine.

    Its normalizer has to leave cuts alone, a pre-tokenizer has to split there, and no added token that is looked for in
    text may be found across one, or take the space at one.

    Args:
        special_tokens: as for `transforms.encoding.encoders.ReferenceEncoder`.
    """
    return cuts_of(json.loads(tokenizer.json), special_tokens)


def cuts_of(whole: Mapping[str, Any], special_tokens: SpecialTokens) -> Cuts:
    """As `where_to_cut`, of the content of a tokenizer.json."""
    wanted = [
        token for token in whole.get("added_tokens") or [] if special_tokens == "token" or not token.get("special")
    ]
    if is_sentencepiece(whole):
        try:
            return cuts_of_sentencepiece(sentencepiece_form(whole), wanted)
        except GigatokenUnfitError:
            return "nowhere"
    names = {step.get("type") for step in _steps(whole.get("normalizer"), "normalizers")}
    certain = (
        names <= _NORMALIZERS
        and _splits_at_cuts(_steps(whole.get("pre_tokenizer"), "pretokenizers"))
        and tokens_leave_cuts(wanted, normalized=bool(names))
    )
    return "before" if certain else "nowhere"


def cuts_of_sentencepiece(form: SentencePieceForm, wanted: Sequence[Mapping[str, Any]]) -> Cuts:
    """As `where_to_cut`, with BPE in SentencePiece's manner, and the added tokens that are looked for."""
    if not form.can_be_cut or not tokens_leave_cuts(wanted, normalized=False):
        return "nowhere"
    if form.prefix != "always":
        return "before"
    takes_spaces = any(token.get("lstrip") or " " in token["content"] for token in wanted)
    return "nowhere" if takes_spaces else "over"


def _steps(part: Mapping[str, Any] | None, members: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a normalizer or pre-tokenizer one after another, those in sequences as well."""
    if part is None:
        return
    if members in part:
        for member in part[members]:
            yield from _steps(member, members)
    else:
        yield part


def _splits_at_cuts(steps: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one of the steps of a pre-tokenizer does, and those before it split alike whatever is cut off."""
    for step in steps:
        kind = step.get("type")
        if kind in _AT_CUTS:
            return True
        if kind == "ByteLevel" and step.get("use_regex", True):
            return True
        # Its prefix is not put before text that begins with one, as a space becomes one.
        if kind == "Metaspace" and step.get("split", True):
            return True
        pattern = step["pattern"].get("Regex") if kind == "Split" else None
        isolates = (step.get("behavior"), step.get("invert")) in (("Isolated", False), ("Removed", True))
        if isolates and pattern in SPLITS_AT_CUTS:
            return True
        if kind not in _OF_CHARACTERS and not (isolates and pattern in SPLITS_OF_CHARACTERS):
            return False
    return False


def tokens_leave_cuts(added_tokens: Sequence[Mapping[str, Any]], *, normalized: bool) -> bool:
    """Whether no added token that is looked for in text can be found across a cut, or takes the space at one.

    Tokens of spaces cannot, since only one stands at a cut.

    Args:
        normalized: whether there is a normalizer, which may make spaces and letters of other characters.
    """
    return not any(
        token.get("rstrip") or any(_holds_a_cut(name) for name in _forms(token["content"], normalized=normalized))
        for token in added_tokens
    )


def _forms(name: str, *, normalized: bool) -> Iterator[str]:
    """A name, and the forms in which it may be looked for once text is normalized."""
    yield name
    if normalized:
        apart = unicodedata.normalize("NFKD", name)
        yield "".join(character for character in apart if not unicodedata.combining(character)).lower()


def _holds_a_cut(name: str) -> bool:
    return any(after == " " and stands_at_cuts()[ord(before)] for before, after in itertools.pairwise(name))


def any_long(offsets: NDArray[np.int64]) -> bool:
    """Whether any of the documents that begin and end there is to be cut."""
    return len(offsets) > 1 and bool(np.diff(offsets).max() > PIECE_BYTES)


def without_spaces(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Documents in pieces without the spaces that begin them, but for the first of each.

    Args:
        data, offsets: the documents, as for `piece_ends`.
        ends: where their pieces end.

    Returns:
        data, and where pieces begin in it, and the last ends.

    >>> text = np.frombuffer(b"ab cd ef", np.uint8)
    >>> data, bounds = without_spaces(text, np.array([0, 8]), np.array([0, 2, 5, 8]))
    >>> data.tobytes(), bounds.tolist()
    (b'abcdef', [0, 2, 4, 6])
    """
    spaces = np.setdiff1d(ends, offsets)
    return np.delete(data, spaces), ends - np.searchsorted(spaces, ends)


def piece_ends(data: NDArray[np.uint8], offsets: NDArray[np.int64], *, cut: bool) -> NDArray[np.int64]:
    """Where the pieces of documents end.

    Args:
        data: all documents, one after the other, as UTF-8.
        offsets: where each begins in it, and where the last ends; int64 [documents + 1].
        cut: whether long documents may be cut.

    Returns:
        int64 [pieces + 1], which begins with `offsets[0]` and holds all of `offsets`.

    Raises:
        BroetchenError: a piece is too long.

    >>> text = np.frombuffer(b"ab " * 700_000, np.uint8)
    >>> piece_ends(text, np.array([0, len(text)]), cut=True).tolist()
    [0, 1048577, 2097155, 2100000]
    """
    ends = [int(offsets[0])]
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        pieces = _pieces(data, start, end, cut=cut)
        ends += pieces[1:]
        if (longest := _longest(pieces)) > LARGEST_PIECE:
            raise BroetchenError(
                f"a document of {format_size(end - start)} has {format_size(longest)} in one piece, and at most "
                f"{format_size(LARGEST_PIECE)} can be encoded at once; it begins with "
                f"{data[start : start + 40].tobytes().decode(errors='replace')!r}: take it out of the source"
            )
    return np.array(ends, np.int64)


def without_too_long(
    batch: TextBatch, tokenizer: TokenizerFile, special_tokens: SpecialTokens, *, first_row: int | None = None
) -> TextBatch:
    """A batch without the documents that hold more than `LARGEST_PIECE` in one piece: these are rows left out.

    Args:
        first_row: as for `transforms.texts.leave_out`.
    """
    if batch.text_bytes <= LARGEST_PIECE:
        return batch
    data, offsets = text_buffers(batch.texts)
    fits = np.diff(offsets) <= LARGEST_PIECE
    cut = where_to_cut(tokenizer, special_tokens) != "nowhere"
    for document in np.flatnonzero(~fits).tolist():
        start, end = int(offsets[document]), int(offsets[document + 1])
        fits[document] = _longest(_pieces(data, start, end, cut=cut)) <= LARGEST_PIECE
    return leave_out(batch, TOO_LONG, pa.array(fits), first_row=first_row)


def _pieces(data: NDArray[np.uint8], start: int, end: int, *, cut: bool) -> list[int]:
    """Where the pieces of a document begin, and where it ends."""
    return [start, *(_cuts(data, start, end) if cut else ()), end]


def _longest(pieces: Sequence[int]) -> int:
    return max(b - a for a, b in itertools.pairwise(pieces))


def _cuts(data: NDArray[np.uint8], start: int, end: int) -> Iterator[int]:
    while end - start > PIECE_BYTES:
        found = first_cut(data, start + PIECE_BYTES, end)
        if found is None:
            return
        start = found
        yield start
