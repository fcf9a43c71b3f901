"""What gigatoken can be given of a tokenizer.json, so that it surely gives the ids of `tokenizers`.

gigatoken reads less of a tokenizer.json than `tokenizers` does and ignores much of what it does not know. So only
settings of model, pre-tokenizer and normalizer that the tests have compared are accepted, and what the engine would do
otherwise is taken out of the file, to be done around it.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

from transforms.encoding.long_documents import settings_can_be_cut
from transforms.encoding.splits import COVERING_SPLITS, Digits, byte_characters, known_spellings
from transforms.errors import UsageError
from transforms.segments.code_points import Form
from transforms.tokenizer.file import TokenizerFile
from transforms.tokenizer.spec import SpecialTokens

# gigatoken was seen to take some 57 bytes for each id up to the largest, whether there is a token for it or not, and
# to abort the process where it gets no memory.
_LARGEST_ID = 1 << 22
_A_DIGIT = re.compile("[0-9]")


class GigatokenUnfitError(UsageError):
    """Gigatoken cannot be used with a tokenizer; `reason` ("does not …") stands after its name."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"gigatoken {reason}; use the engine `tokenizers`, or `auto`")
        self.reason = reason


@dataclass(frozen=True)
class GigatokenInput:
    """What is left of a tokenizer for gigatoken, and what is to be done outside of it.

    Attributes:
        json: a tokenizer.json without normalizer, added tokens and whatever no text can reach.
        form: the normalization to do first.
        digits: what is to be done of numbers outside of it.
        raw_tokens: the added tokens to look for in text as it is, as the tokenizer.json has them; special ones that are
            text are among them if others are, since they hide them.
        normalized_tokens: the same, to look for after normalization.
        text_tokens: the names of those that are text.
        whole_documents: whether a document that holds one of them goes to the reference, which alone knows what comes
            of its flags, and which of two is meant that are one once they are normalized.
        can_be_cut: see `transforms.encoding.long_documents.can_be_cut`.
        unmerged_digits: whether no token holds a digit but those of the ten digits, where that matters.
        largest_id: the largest id that it may give.
    """

    json: str
    form: Form | None
    digits: Digits | None
    raw_tokens: tuple[dict[str, Any], ...]
    normalized_tokens: tuple[dict[str, Any], ...]
    text_tokens: frozenset[str]
    whole_documents: bool
    can_be_cut: bool
    unmerged_digits: bool
    largest_id: int


@functools.lru_cache(maxsize=4)  # a quarter of a second for 65,536 entries, and both encoders of a tokenizer need it
def gigatoken_input(tokenizer: TokenizerFile, special_tokens: SpecialTokens) -> GigatokenInput:
    """What gigatoken can be given of a tokenizer so that it encodes alike.

    Args:
        tokenizer: the tokenizer.
        special_tokens: as for `transforms.encoding.encoders.ReferenceEncoder`.

    Raises:
        GigatokenUnfitError: nothing that would surely do; says why.
    """
    whole = json.loads(tokenizer.json)
    form = _form(whole.get("normalizer"))
    pre_tokenizer, digits = _known_pre_tokenizer(whole.get("pre_tokenizer"))
    if digits is not None and form == "NFKC":
        raise GigatokenUnfitError("is not used with NFKC and this tokenizer's split of numbers")
    model = _simplify_model(whole["model"])
    added = [token for token in whole.get("added_tokens") or [] if token["content"]]
    # `tokenizers` takes special tokens for plain text where it is told to; all other added tokens it always looks for.
    text = frozenset(token["content"] for token in added if special_tokens == "text" and token["special"])
    wanted = [token for token in added if token["content"] not in text]
    return GigatokenInput(
        json=json.dumps({"version": "1.0", "added_tokens": [], "pre_tokenizer": pre_tokenizer, "model": model}),
        form=form,
        digits=digits,
        raw_tokens=_looked_for(added, text, normalized=False),
        normalized_tokens=_looked_for(added, text, normalized=True),
        text_tokens=text,
        whole_documents=_reference_decides(added, wanted, form),
        can_be_cut=settings_can_be_cut(whole, special_tokens),
        unmerged_digits=digits is not None
        and not any(len(token) > 1 and _A_DIGIT.search(token) for token in model["vocab"]),
        largest_id=max(model["vocab"].values()),
    )


def _reference_decides(added: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]], form: Form | None) -> bool:
    if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in wanted):
        return True
    names = [(token["normalized"], _written(token, form)) for token in added]
    return len(set(names)) < len(names)


def _written(token: dict[str, Any], form: Form | None) -> str:
    """An added token's name as it is looked for."""
    name: str = token["content"]
    return unicodedata.normalize(form, name) if form and token["normalized"] else name


def _looked_for(
    added: Sequence[dict[str, Any]], text: frozenset[str], *, normalized: bool
) -> tuple[dict[str, Any], ...]:
    tokens = tuple(token for token in added if token["normalized"] == normalized)
    return tokens if any(token["content"] not in text for token in tokens) else ()


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
        it, and what is to be done of numbers outside of it.
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
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
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
    if (largest := max(vocabulary.values())) > _LARGEST_ID:
        raise GigatokenUnfitError(f"takes memory for each id up to the largest, which is {largest:,} here")
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
