"""BPE in SentencePiece's manner, as Llama-2, Mistral, Gemma and Yi have it: the part that gigatoken can take.

There a space is `▁`, words are mostly not split before they are merged, and a character without a token becomes a token
for each of its bytes. gigatoken does this as `tokenizers` does, whatever the Unicode version, with these exceptions:

* `tokenizers` puts a `▁` before each stretch of text between added tokens; here a space is put there outside of
  gigatoken (`with_prefixes`).
* Where a character has neither a token nor one for each of its bytes, they differ. So do they for tokens that look like
  those of bytes, for merges of these, and for merges that come twice. Such tokenizers are left to `tokenizers`.
* Tokens that no merge makes are left out of its input, since it would find some that `tokenizers` does not.

No library says so: `python -m tests.campaign.engines` and `tests/transforms/encoding/test_sentencepiece.py` do.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from transforms.encoding.unfit import GigatokenUnfitError
from transforms.segments.cuts import stands_at_cuts
from transforms.segments.segments import FAST, Segments

MARK: Final = "▁"
REPLACE: Final = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
_MARK_BYTES = np.frombuffer(MARK.encode(), np.uint8)
_SPACE = ord(" ")

Prefix = Literal["none", "always", "unless marked", "first unless marked"]
"""Before which stretches of text between added tokens a `▁` is put: none, all that are not empty, all that do not begin
with a space or `▁`, or of these the one with which a document begins."""

_BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
# gigatoken reads the two characters as Rust does, which allows for "+A", and for small letters.
_LIKE_BYTE_TOKENS = re.compile(r"<0x.{1,2}>", re.DOTALL)
_LIKE_BYTE_TOKENS_BEGIN, _LENGTH_OF_BYTE_TOKENS = "<0x", 6
# The bytes that begin or continue a character.
_BYTES_OF_CHARACTERS = (*range(0x80), *range(0x80, 0xC0), *range(0xC2, 0xF5))


@dataclass(frozen=True)
class SentencePieceForm:
    """A tokenizer.json in SentencePiece's manner.

    Attributes:
        prefix: where a `▁` is put before text.
        splits: whether words are split before each `▁`, and then merged.
        crosses: whether a token holds a `▁` after a letter or digit of those at cuts, so that merges may cross one.
        model: without tokens that no text can reach.
    """

    prefix: Prefix
    splits: bool
    crosses: bool
    model: Mapping[str, Any]

    @property
    def can_be_cut(self) -> bool:
        """Whether no merge can reach across a cut (`transforms.segments.cuts`)."""
        return self.splits or not self.crosses

    def pre_tokenizer(self) -> dict[str, Any] | None:
        """The one that gigatoken is given."""
        if not self.splits:
            return None
        return {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "never", "split": True}


def is_sentencepiece(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json is BPE whose characters without a token become bytes."""
    model = tokenizer["model"]
    return model.get("type", "BPE" if "merges" in model else None) == "BPE" and bool(model.get("byte_fallback"))


def sentencepiece_form(tokenizer: Mapping[str, Any]) -> SentencePieceForm:
    """The parts of a tokenizer.json that gigatoken encodes alike.

    Raises:
        GigatokenUnfitError: it would not surely; says why.
    """
    prefix, splits = _prefix_and_split(tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer"))
    model, crosses = _reachable(tokenizer["model"])
    return SentencePieceForm(prefix, splits, crosses, model)


def check_added_tokens(
    form: SentencePieceForm, added: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]
) -> None:
    """Checks that added tokens can be looked for in the text as it is.

    Args:
        added: all of them.
        wanted: those that are no text.

    Raises:
        GigatokenUnfitError: some are changed by the normalizer first.
    """
    if not any(token["normalized"] for token in wanted):
        return
    for token in added:
        if token["normalized"] and (form.prefix == "always" or {" ", MARK} & set(token["content"])):
            raise GigatokenUnfitError("is not used where added tokens are normalized to others, as by this tokenizer")


def with_prefixes(
    data: NDArray[np.uint8], segments: Segments, prefix: Prefix
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Text with a space before each fast segment that gets a `▁`, and the bounds of the segments in it."""
    begins, lengths = segments.bounds[:-1], segments.lengths()
    gets = (segments.kinds == FAST) & (lengths > 0)
    if prefix != "always":
        gets &= ~_marked(data, begins)
    if prefix == "first unless marked":
        first = np.zeros(len(gets), bool)
        first[segments.first[:-1][segments.first[:-1] < len(gets)]] = True
        gets &= first
    bounds = segments.bounds + np.concatenate([[0], np.cumsum(gets)])
    return np.insert(data, begins[gets], _SPACE), bounds


def _marked(data: NDArray[np.uint8], begins: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a space or `▁` begins."""
    padded = np.concatenate([data, np.zeros(len(_MARK_BYTES), np.uint8)])
    marks = [padded[begins + number] == byte for number, byte in enumerate(_MARK_BYTES)]
    found: NDArray[np.bool_] = (padded[begins] == _SPACE) | np.logical_and.reduce(marks)
    return found


def _prefix_and_split(
    normalizer: Mapping[str, Any] | None, pre_tokenizer: Mapping[str, Any] | None
) -> tuple[Prefix, bool]:
    steps = [] if normalizer is None else [normalizer]
    if normalizer is not None and normalizer.get("type") == "Sequence":
        steps = normalizer["normalizers"]
    if pre_tokenizer is not None and len(pre_tokenizer.get("pretokenizers", ())) == 1:
        pre_tokenizer = pre_tokenizer["pretokenizers"][0]
    kind = None if pre_tokenizer is None else pre_tokenizer.get("type")
    if not steps and pre_tokenizer is not None and kind == "Metaspace":
        if pre_tokenizer["replacement"] != MARK:
            raise GigatokenUnfitError(f"knows Metaspace with {MARK} alone")
        scheme = pre_tokenizer.get("prepend_scheme", "always")
        if pre_tokenizer.get("add_prefix_space") is False:
            scheme = "never"
        prefixes: dict[str, Prefix] = {"always": "unless marked", "first": "first unless marked", "never": "none"}
        return prefixes[scheme], pre_tokenizer.get("split") is not False
    prepends = len(steps) > 1 and steps[0] == {"type": "Prepend", "prepend": MARK}
    if list(steps[prepends:]) != [REPLACE]:
        kinds = ", ".join(str(step.get("type", "without a type")) for step in steps) or "none"
        raise GigatokenUnfitError(f"is not used with the normalizers of this tokenizer ({kinds}) and byte_fallback")
    # No space is left at which it could split.
    splits_nothing = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    if pre_tokenizer not in (None, splits_nothing):
        raise GigatokenUnfitError(f"is not used with the pre-tokenizer {kind} of this tokenizer and byte_fallback")
    return ("always" if prepends else "none"), False


def _reachable(model: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The model without tokens that no text can reach; see `SentencePieceForm.crosses`."""
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        if model.get(key):
            raise GigatokenUnfitError(f"does not do BPE with {key}, as this tokenizer sets, and byte_fallback")
    vocabulary: dict[str, int] = model["vocab"]
    if len(set(vocabulary.values())) < len(vocabulary):
        raise GigatokenUnfitError("needs an id for each token, and two of this tokenizer's have one")
    of_bytes = set(_BYTE_TOKENS)
    for token in vocabulary.keys() - of_bytes:
        if (
            token.startswith(_LIKE_BYTE_TOKENS_BEGIN)
            and len(token.encode()) == _LENGTH_OF_BYTE_TOKENS
            and _LIKE_BYTE_TOKENS.fullmatch(token)
        ):
            raise GigatokenUnfitError(f"would take the token {token} for one of a byte")
    for byte in _BYTES_OF_CHARACTERS:
        if _BYTE_TOKENS[byte] not in vocabulary and (byte >= 0x80 or (byte != _SPACE and chr(byte) not in vocabulary)):
            raise GigatokenUnfitError(f"needs a token for each byte that text may hold, and {byte:#04x} has none here")
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    if len(set(pairs)) < len(pairs):
        raise GigatokenUnfitError("needs each merge once, and this tokenizer has one twice")
    merged = {*itertools.chain.from_iterable(pairs), *map("".join, pairs)}
    if "" in merged or not of_bytes.isdisjoint(merged):
        raise GigatokenUnfitError("does no merges of the tokens for bytes")
    reached = _merged({token for token in vocabulary if len(token) == 1 and token != " "}, pairs)
    at_cuts = stands_at_cuts()
    crosses = any(
        after == MARK and at_cuts[ord(before)]
        for token in reached
        if MARK in token[1:]
        for before, after in itertools.pairwise(token)
    )
    return {
        "type": "BPE",
        "byte_fallback": True,
        "vocab": {token: number for token, number in vocabulary.items() if token in reached or token in of_bytes},
        "merges": [pair for pair in pairs if pair[0] in reached and pair[1] in reached],
    }, crosses


def _merged(reached: set[str], pairs: Sequence[tuple[str, ...]]) -> set[str]:
    """Characters, and all that merges make of them; mostly merges stand in an order in which one round does."""
    waiting = pairs
    while True:
        left_over: list[tuple[str, ...]] = []
        for left, right in waiting:
            if left in reached and right in reached:
                reached.add(left + right)
            else:
                left_over.append((left, right))
        if len(left_over) == len(waiting):
            return reached
        waiting = left_over
