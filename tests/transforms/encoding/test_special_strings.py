"""Documents with the string of a special token are found where `tokenizers` takes it for the token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.support.examples import at_most
from tests.support.small_tokenizers import GPT2, added_token, as_file, byte_level
from transforms.encoding.special_strings import SpecialStrings, special_tokens

NFKC = {"type": "NFKC"}
LOWER = {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}]}
PARTS = [
    "<|eos|>",
    "<|",
    "eos",
    "|>",
    "</s>",
    "<s",
    ">",
    "[PAD]",
    "＜|EOS|＞",
    "ﬁ",
    "ä",
    "a\u0308",
    " ",
    "\n",
    "🥐",
    "\U0001ccd6",
]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=6).map("".join)


def strings(*tokens: dict[str, Any], normalizer: dict[str, Any] | None = None) -> tuple[SpecialStrings, Tokenizer]:
    whole = byte_level(added_tokens=tokens, normalizer=normalizer)
    return SpecialStrings(as_file(whole)), Tokenizer.from_str(json.dumps(whole | {"decoder": GPT2}))


def held(found: SpecialStrings, texts: Sequence[str]) -> list[bool]:
    return found.held_by(pa.array(texts, pa.large_string())).tolist()


def taken(tokenizer: Tokenizer, texts: Sequence[str]) -> list[bool]:
    """Whether `tokenizers` makes one of the special tokens, whose ids are 300 and more, of a text."""
    return [any(token >= 300 for token in tokenizer.encode(text).ids) for text in texts]


@at_most(50)
@given(st.lists(TEXTS, max_size=8))
@pytest.mark.parametrize("normalizer", [None, {"type": "NFC"}, NFKC, LOWER])
def test_those_are_found_that_tokenizers_takes_for_tokens(normalizer, texts):
    names = ["<|eos|>", "</s>", "[PAD]"]
    for normalized in (False, True):
        tokens = [added_token(300 + i, name, normalized=normalized) for i, name in enumerate(names)]
        found, tokenizer = strings(*tokens, normalizer=normalizer)
        # A string of its own is found also where the normalizer would hide it, as lower case does.
        written = [any(name in text for name in names) for text in texts]
        expected = [one or other for one, other in zip(taken(tokenizer, texts), written, strict=True)]
        assert held(found, texts) == expected


def test_what_a_normalizer_makes_of_a_text_counts_for_tokens_that_are_normalized():
    texts = ["＜|eos|＞", "<|eos|>", "<|eos|"]
    raw, normalized = (
        strings(added_token(300, "<|eos|>", normalized=flag), normalizer=NFKC)[0] for flag in (False, True)
    )
    assert held(raw, texts) == [False, True, False]
    assert held(normalized, texts) == [True, True, False]


def test_slices_of_texts_and_no_texts():
    found, _ = strings(added_token(300, "<|eos|>", normalized=True), normalizer=NFKC)
    texts = pa.array(["<|eos|>", "ä", "＜|eos|＞", "ö", "ä<|eos|>"], pa.large_string())
    assert found.held_by(texts.slice(1, 3)).tolist() == [False, True, False]
    assert found.held_by(texts.slice(0, 0)).tolist() == []


def test_tokens_that_are_not_special_or_have_no_name_are_none():
    tokens = [added_token(300, "<think>", special=False), added_token(301, "<|eos|>")]
    found, _ = strings(*tokens)
    assert held(found, ["<think>", "<|eos|>"]) == [False, True]
    assert special_tokens({"added_tokens": [added_token(1, "")]}) == []
    assert special_tokens({}) == []
    assert held(strings()[0], ["<|eos|>", ""]) == [False, False]


@pytest.mark.parametrize("name", ["a.b", "[x]*", "(", "\\", "a|b", "\n", "ä\u0301", "😀 ?"])
def test_names_are_no_patterns(name):
    found, _ = strings(added_token(300, name))
    assert held(found, [f"x{name}y", "axb", "x", ""]) == [True, False, False, False]


def test_thousands_of_special_tokens():
    names = [f"<unused{number}>" for number in range(7000)] + [chr(0x4E00 + number) * 2 for number in range(100)]
    found, _ = strings(*[added_token(300 + i, name) for i, name in enumerate(names)])
    assert held(found, ["<unused6999>", "<unused7000>", "<unused", "x一一", "一"]) == [True, False, False, True, False]


def test_the_result_is_one_bit_a_document():
    found, _ = strings(added_token(300, "<|eos|>"))
    assert found.held_by(pa.array(["a"], pa.large_string())).dtype == np.bool_
