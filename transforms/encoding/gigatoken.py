"""What gigatoken can be given of a tokenizer.json, so that it surely gives the ids of `tokenizers`.

gigatoken reads less of a tokenizer.json than `tokenizers` does and ignores much of what it does not know. So only
settings of model, pre-tokenizer and normalizer that the tests have compared are accepted, and what the engine would do
otherwise is taken out of the file, to be done around it.
"""

from __future__ import annotations

import functools
import json
import unicodedata
from dataclasses import dataclass
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

from transforms.encoding.code_points import Form
from transforms.encoding.long_documents import can_be_cut
from transforms.encoding.splits import PROVEN_SPLITS
from transforms.errors import UsageError
from transforms.tokenizer.file import TokenizerFile
from transforms.tokenizer.spec import SpecialTokens

# gigatoken was seen to take some 57 bytes for each id up to the largest, whether there is a token for it or not, and
# to abort the process where it gets no memory.
_LARGEST_ID = 1 << 22


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
        raw_tokens: an RE2 pattern; documents that match go to the reference. None where none has to.
        normalized_tokens: the same, for documents after normalization.
        can_be_cut: whether long documents can be encoded in pieces, by whatever engine.
    """

    json: str
    form: Form | None
    raw_tokens: str | None
    normalized_tokens: str | None
    can_be_cut: bool


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
    _check_pre_tokenizer(whole.get("pre_tokenizer"))
    model = _simplify_model(whole["model"])
    # `tokenizers` takes special tokens for plain text where it is told to; all other added tokens it always looks for.
    added = [
        token
        for token in whole.get("added_tokens", [])
        if token["content"] and not (special_tokens == "text" and token["special"])
    ]
    return GigatokenInput(
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


def _form(normalizer: dict[str, Any] | None) -> Form | None:
    if normalizer is None:
        return None
    kind = normalizer.get("type", "without a type")  # `tokenizers` finds out which one fits
    if kind == "Sequence" and len(normalizer["normalizers"]) <= 1:
        return _form(next(iter(normalizer["normalizers"]), None))
    if kind == "NFC" or kind == "NFKC":
        return "NFC" if kind == "NFC" else "NFKC"
    raise GigatokenUnfitError(f"is not used with the normalizer {kind} of this tokenizer")


def _check_pre_tokenizer(pre_tokenizer: dict[str, Any] | None) -> None:
    """Refuses all but GPT-2's splitting, or one of PROVEN_SPLITS, followed by byte-level."""
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
        return
    if last.get("use_regex", True) or last["add_prefix_space"]:
        raise GigatokenUnfitError("does not do ByteLevel with use_regex or add_prefix_space after other pre-tokenizers")
    patterns = []
    for split in splits:
        if split["type"] != "Split" or split["behavior"] != "Isolated" or split["invert"]:
            raise GigatokenUnfitError("does no pre-tokenizers before ByteLevel but Split, Isolated and not inverted")
        patterns.append(split["pattern"].get("Regex"))
    if tuple(patterns) not in PROVEN_SPLITS.values():
        raise GigatokenUnfitError(f"is not known to split as this tokenizer does, by {patterns}")


def _simplify_model(model: dict[str, Any]) -> dict[str, Any]:
    """The model without tokens that no text can reach, which gigatoken might mix up with others."""
    kind = model.get("type", "BPE" if "merges" in model else "without a type")
    if kind != "BPE":
        raise GigatokenUnfitError(f"encodes byte-level BPE alone, and this tokenizer's model is {kind}")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise GigatokenUnfitError(f"does not do BPE with {key}, as this tokenizer sets")
    alphabet = frozenset(ByteLevel.alphabet())
    vocabulary: dict[str, int] = model["vocab"]
    if missing := len(alphabet - vocabulary.keys()):
        raise GigatokenUnfitError(f"needs a token for each of the 256 bytes, and this vocabulary lacks {missing}")
    if (largest := max(vocabulary.values())) > _LARGEST_ID:
        raise GigatokenUnfitError(f"takes memory for each id up to the largest, which is {largest:,} here")
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    made = [vocabulary["".join(pair)] for pair in pairs]
    # It ranks merges by the ids that they make, if those ascend: two that make the same would have the same rank.
    if len(set(made)) < len(made):
        raise GigatokenUnfitError("needs each merge to make another token, and two of this tokenizer's make the same")
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
