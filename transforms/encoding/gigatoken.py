"""The part of a tokenizer.json for gigatoken, chosen so that it surely gives the ids of `tokenizers`.

gigatoken reads less of a tokenizer.json than `tokenizers` does and ignores many parts that it does not know. So only
settings of model, pre-tokenizer and normalizer that the tests have compared are accepted, and steps that the engine
would do otherwise are taken out of the file, and done around it.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transforms.encoding.byte_level import byte_level_form
from transforms.encoding.long_documents import Cuts, cuts_of, cuts_of_sentencepiece
from transforms.encoding.sentencepiece import (
    REPLACE,
    Prefix,
    check_added_tokens,
    is_sentencepiece,
    sentencepiece_form,
)
from transforms.encoding.splits import Digits
from transforms.encoding.unfit import GigatokenUnfitError
from transforms.errors import UsageError
from transforms.segments.code_points import Form
from transforms.tokenizer.file import TokenizerFile
from transforms.tokenizer.spec import SpecialTokens

# gigatoken was seen to take some 57 bytes for each id up to the largest, whether there is a token for it or not, and
# to abort the process where it gets no memory.
_LARGEST_ID = 1 << 22
_A_DIGIT = re.compile("[0-9]")


@dataclass(frozen=True)
class GigatokenInput:
    """The part of a tokenizer for gigatoken, and the steps that are done outside of it.

    Attributes:
        json: a tokenizer.json without added tokens, and without tokens that no text can reach.
        form: the normalization to do first.
        digits: the part of the work on numbers to do outside of it.
        raw_tokens: the added tokens to look for in text as it is, as the tokenizer.json has them; special ones that are
            text are among them if others are, since they hide them.
        normalized_tokens: the same, to look for after normalization.
        text_tokens: the names of those that are text.
        names: of all added tokens.
        whole_documents: whether a document that holds one of them goes to the reference, which alone knows what comes
            of its flags.
        prefix: where a space is put before text (`transforms.encoding.sentencepiece`); None for byte-level BPE, where
            text is to be looked through for characters that engines do not know alike.
        cuts: where long documents can be cut.
        unmerged_digits: whether no token holds a digit but those of the ten digits, where that matters.
        largest_id: the largest id that it may give.
    """

    json: str
    form: Form | None
    digits: Digits | None
    raw_tokens: tuple[dict[str, Any], ...]
    normalized_tokens: tuple[dict[str, Any], ...]
    text_tokens: frozenset[str]
    names: frozenset[str]
    whole_documents: bool
    prefix: Prefix | None
    cuts: Cuts
    unmerged_digits: bool
    largest_id: int


@functools.lru_cache(maxsize=4)  # a quarter of a second for 65,536 entries, and both encoders of a tokenizer need it
def gigatoken_input(tokenizer: TokenizerFile, special_tokens: SpecialTokens) -> GigatokenInput:
    """The part of a tokenizer that gigatoken encodes alike.

    Args:
        tokenizer: the tokenizer.
        special_tokens: as for `transforms.encoding.encoders.ReferenceEncoder`.

    Raises:
        GigatokenUnfitError: nothing that would surely do; says why.
        UsageError: nothing would: see `check_told_apart`.
    """
    whole = json.loads(tokenizer.json)
    added = [token for token in whole.get("added_tokens") or [] if token["content"]]
    # `tokenizers` takes special tokens for plain text where it is told to; all other added tokens it always looks for.
    text = frozenset(token["content"] for token in added if special_tokens == "text" and token["special"])
    wanted = [token for token in added if token["content"] not in text]
    form: Form | None = None
    digits: Digits | None = None
    prefix: Prefix | None = None
    given: dict[str, Any] = {"version": "1.0", "added_tokens": []}
    if is_sentencepiece(whole):
        pieces = sentencepiece_form(whole)
        check_added_tokens(pieces, added, wanted)
        model, prefix, cuts = pieces.model, pieces.prefix, cuts_of_sentencepiece(pieces, wanted)
        given |= {"normalizer": REPLACE, "pre_tokenizer": pieces.pre_tokenizer(), "model": model}
    else:
        of_bytes = byte_level_form(whole)
        model, form, digits = of_bytes.model, of_bytes.normalization, of_bytes.digits
        cuts = cuts_of(whole, special_tokens)
        check_told_apart(added, text, functools.partial(_normalized, form))
        given |= {"pre_tokenizer": of_bytes.pre_tokenizer, "model": model}
    if (largest := max(whole["model"]["vocab"].values())) > _LARGEST_ID:
        raise GigatokenUnfitError(f"takes memory for each id up to the largest, which is {largest:,} here")
    return GigatokenInput(
        json=json.dumps(given),
        form=form,
        digits=digits,
        raw_tokens=_looked_for(added, text, normalized=False),
        normalized_tokens=_looked_for(added, text, normalized=True),
        text_tokens=text,
        names=frozenset(token["content"] for token in added),
        whole_documents=_reference_decides(added, wanted),
        prefix=prefix,
        cuts=cuts,
        unmerged_digits=digits is not None
        and not any(len(token) > 1 and _A_DIGIT.search(token) for token in model["vocab"]),
        largest_id=max(model["vocab"].values()),
    )


def check_told_apart(added: Iterable[Mapping[str, Any]], text: frozenset[str], normalize: Callable[[str], str]) -> None:
    """Checks that no two added tokens are one once they are normalized: `tokenizers` takes either, by chance.

    Args:
        added: as a tokenizer.json has them.
        text: the names of those that are text.
        normalize: as the tokenizer does.

    Raises:
        UsageError: two are; the message names them.
    """
    names: dict[str, list[str]] = defaultdict(list)
    for content in dict.fromkeys(token["content"] for token in added if token["normalized"]):
        names[normalize(content)].append(content)
    for alike in names.values():
        if len(alike) > 1 and not text.issuperset(alike):
            raise UsageError(
                f"the added tokens {' and '.join(map(ascii, alike))} of this tokenizer are one once they are "
                "normalized, and tokenizers takes either of them by chance; leave out all but one in its tokenizer.json"
            )


def _reference_decides(added: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]]) -> bool:
    # Of two with one name, which may have other flags, the reference knows which one counts.
    twice = len({token["content"] for token in added}) < len(added)
    return twice or any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in wanted)


def _normalized(form: Form | None, text: str) -> str:
    return unicodedata.normalize(form, text) if form else text


def _looked_for(
    added: Sequence[dict[str, Any]], text: frozenset[str], *, normalized: bool
) -> tuple[dict[str, Any], ...]:
    tokens = tuple(token for token in added if token["normalized"] == normalized)
    return tokens if any(token["content"] not in text for token in tokens) else ()
