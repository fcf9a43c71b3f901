"""Byte-level BPE, as GPT-2 and most tokenizers since have it: the part that gigatoken can take."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

from transforms.encoding.splits import COVERING_SPLITS, Digits, byte_characters, known_spellings
from transforms.encoding.unfit import GigatokenUnfitError
from transforms.segments.code_points import Form


@dataclass(frozen=True)
class ByteLevelForm:
    """A tokenizer.json of byte-level BPE.

    Attributes:
        normalization: to be done before gigatoken.
        digits: the part of the work on numbers to do outside of it.
        pre_tokenizer: one that gigatoken knows.
        model: without tokens that no text can reach.
    """

    normalization: Form | None
    digits: Digits | None
    pre_tokenizer: Mapping[str, Any]
    model: Mapping[str, Any]


def byte_level_form(tokenizer: Mapping[str, Any]) -> ByteLevelForm:
    """The parts of a tokenizer.json that gigatoken encodes alike.

    Raises:
        GigatokenUnfitError: it would not surely; says why.
    """
    form = _form(tokenizer.get("normalizer"))
    pre_tokenizer, digits = _known_pre_tokenizer(tokenizer.get("pre_tokenizer"))
    if digits is not None and form == "NFKC":
        raise GigatokenUnfitError("is not used with NFKC and this tokenizer's split of numbers")
    return ByteLevelForm(form, digits, pre_tokenizer, _simplify_model(tokenizer["model"]))


def _form(normalizer: dict[str, Any] | None) -> Form | None:
    if normalizer is None:
        return None
    kind = normalizer.get("type", "without a type")  # `tokenizers` finds out which one fits
    if kind == "Sequence" and len(normalizer["normalizers"]) <= 1:
        return _form(next(iter(normalizer["normalizers"]), None))
    if kind == "NFC" or kind == "NFKC":
        return "NFC" if kind == "NFC" else "NFKC"
    raise GigatokenUnfitError(f"is not used with the normalizer {kind} of this tokenizer")


def _known_pre_tokenizer(pre_tokenizer: dict[str, Any] | None) -> tuple[dict[str, Any], Digits | None]:
    """The pre-tokenizer as gigatoken knows it: GPT-2's, or one of PROVEN_SPLITS, followed by byte-level.

    Returns:
        it, and the part of the work on numbers to do outside of it.
    """
    if pre_tokenizer is None or pre_tokenizer.get("pretokenizers") == []:
        raise GigatokenUnfitError("needs a pre-tokenizer, and this tokenizer has none")
    *splits, last = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    if last["type"] != "ByteLevel":
        raise GigatokenUnfitError(f"does not do the pre-tokenizer {last['type']} of this tokenizer")
    if pre_tokenizer["type"] == "ByteLevel":
        if not last.get("use_regex", True):
            raise GigatokenUnfitError(
                "always splits into words, and this tokenizer's ByteLevel does not (use_regex: false)"
            )
        return pre_tokenizer, None
    if last["add_prefix_space"]:
        raise GigatokenUnfitError("does not do ByteLevel with add_prefix_space after other pre-tokenizers")
    if last.get("use_regex", True):
        if [split["type"] for split in splits] == ["Digits"] and splits[0]["individual_digits"]:
            return last, "single"
        raise GigatokenUnfitError("does not do ByteLevel with use_regex after other pre-tokenizers than single Digits")
    patterns = []
    for split in splits:
        if split["type"] != "Split":
            raise GigatokenUnfitError("does no pre-tokenizers before ByteLevel but Split")
        patterns.append(split["pattern"].get("Regex"))
    known, digits = known_spellings().get(tuple(patterns), (None, None))
    if known is None:
        raise GigatokenUnfitError(f"is not known to split as this tokenizer does, by {patterns}")
    ways = {(split["behavior"], split["invert"]) for split in splits}
    if ways != {("Isolated", False)} and not (ways == {("Removed", True)} and known in COVERING_SPLITS):
        raise GigatokenUnfitError("does no Split but Isolated and not inverted, or Removed and inverted")
    isolated = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False} for pattern in known
    ]
    return {"type": "Sequence", "pretokenizers": [*isolated, last]}, digits


def _simplify_model(model: dict[str, Any]) -> dict[str, Any]:
    """The model without tokens that no text can reach, which gigatoken might mix up with others.

    It wants a token for each byte, and ranks merges by the ids that they make where those ascend. So bytes that UTF-8
    never holds get ids that nothing has; and where two merges make one token, a merge that no text can reach comes
    first that makes the largest id, so that the order of the list counts.
    """
    kind = model.get("type", "BPE" if "merges" in model else "without a type")
    if kind != "BPE":
        raise GigatokenUnfitError(f"encodes byte-level BPE alone, and this tokenizer's model is {kind}")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise GigatokenUnfitError(f"does not do BPE with {key}, as this tokenizer sets")
    alphabet = frozenset(ByteLevel.alphabet())
    vocabulary: dict[str, int] = model["vocab"]
    never = {byte_characters()[byte] for byte in (0xC0, 0xC1, *range(0xF5, 0x100))}
    missing = alphabet - vocabulary.keys()
    if missing - never:
        raise GigatokenUnfitError(
            f"needs a token for each byte that text may hold, and this vocabulary lacks {len(missing - never)}"
        )
    largest = max(vocabulary.values())
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    if len(set(pairs)) < len(pairs):
        raise GigatokenUnfitError("needs each merge once, and this tokenizer has one twice")
    reachable, merges = dict(vocabulary), pairs
    if not alphabet.issuperset(set().union(*vocabulary)):
        reachable = {token: token_id for token, token_id in vocabulary.items() if alphabet.issuperset(token)}
        merges = [pair for pair in pairs if alphabet.issuperset("".join(pair))]
    free = itertools.count(largest + 1)
    reachable |= {character: next(free) for character in sorted(missing)}
    made = [reachable[left + right] for left, right in merges]
    if len(set(made)) < len(made) and all(before <= after for before, after in itertools.pairwise(made)):
        # Letter, space, letter: no pre-tokenizer leaves them in one word.
        unreachable = "aĠb", "cĠd"
        for token in (*unreachable, "".join(unreachable)):
            if token in reachable:
                raise GigatokenUnfitError("needs each merge to make another token, and two of this tokenizer's do not")
            reachable[token] = next(free)
        merges.insert(0, unreachable)
    return {
        "type": "BPE",
        "ignore_merges": bool(model.get("ignore_merges")),
        "vocab": reachable,
        "merges": merges,
    }
