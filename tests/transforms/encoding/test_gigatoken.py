"""The uses of gigatoken, and its limits: in a wrong place, other ids would go into the shards unseen."""

from __future__ import annotations

import copy
import json
import logging
from typing import Any

import pyarrow as pa
import pytest
import tokenizers

from tests.support.small_tokenizers import (
    GPT2,
    POSSESSIVE,
    added_token,
    as_file,
    byte_characters,
    byte_level,
    split_then_bytes,
)
from transforms.encoding.encoders import GigatokenEncoder, make_encoder
from transforms.encoding.gigatoken import gigatoken_input
from transforms.encoding.long_documents import where_to_cut
from transforms.encoding.splits import PROVEN_SPLITS
from transforms.encoding.unfit import GigatokenUnfitError
from transforms.errors import UsageError
from transforms.tokenizer.spec import Engine, SpecialTokens

MODES: tuple[SpecialTokens, ...] = ("text", "token")
NFC, NFKC = {"type": "NFC"}, {"type": "NFKC"}
MERGES = [(b"a", b"b"), (b" ", b"a"), (b" a", b"b"), (b"h", b"e"), (b"l", b"l")]
BYTES_AFTER = {**GPT2, "use_regex": False}
USE_REGEX_LEFT_OUT = {key: value for key, value in GPT2.items() if key != "use_regex"}
DIGITS = {"type": "Digits", "individual_digits": True}
(PROVEN,) = PROVEN_SPLITS["gpt2"]
SPLIT = split_then_bytes(PROVEN)["pretokenizers"][0]
NANOCHAT = PROVEN_SPLITS["llama3"][0].replace("{1,3}", "{1,2}")
DEEPSEEK = PROVEN_SPLITS["deepseek3"]


def normalizers(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": parts}


def pre_tokenizers(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": parts}


def with_model(**settings: Any) -> dict[str, Any]:
    tokenizer = byte_level(MERGES)
    tokenizer["model"] |= settings
    return tokenizer


def without(tokenizer: dict[str, Any], *path: Any) -> dict[str, Any]:
    """The tokenizer without the value at the end of a path."""
    left = copy.deepcopy(tokenizer)
    inner = left
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    return left


def with_id(largest: int) -> dict[str, Any]:
    tokenizer = byte_level()
    tokenizer["model"]["vocab"]["word"] = largest
    return tokenizer


UNIGRAM = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]], "byte_fallback": False}
WORD_LEVEL = {"type": "WordLevel", "vocab": byte_level()["model"]["vocab"], "unk_token": "!"}

NORMALIZER = "is not used with the normalizer {} of this tokenizer"
NONE = "needs a pre-tokenizer, and this tokenizer has none"
PRE_TOKENIZER = "does not do the pre-tokenizer {} of this tokenizer"
NO_WORDS = "always splits into words, and this tokenizer's ByteLevel does not (use_regex: false)"
AFTER_OTHERS = "does not do ByteLevel with use_regex after other pre-tokenizers than single Digits"
PREFIX_SPACE = "does not do ByteLevel with add_prefix_space after other pre-tokenizers"
NO_SPLIT = "does no pre-tokenizers before ByteLevel but Split"
OTHER_SPLITS = "does no Split but Isolated and not inverted, or Removed and inverted"
NOT_PROVEN = "is not known to split as this tokenizer does, by {}"
MODEL = "encodes byte-level BPE alone, and this tokenizer's model is {}"
SETTING = "does not do BPE with {}, as this tokenizer sets"
BYTES = "needs a token for each byte that text may hold, and this vocabulary lacks {}"
LARGE_ID = "takes memory for each id up to the largest, which is {} here"
MERGE_TWICE = "needs each merge once, and this tokenizer has one twice"
NFKC_NUMBERS = "is not used with NFKC and this tokenizer's split of numbers"

# Each but for one thing like what is accepted below, so that only one refusal keeps other ids away.
NOT_FOR_GIGATOKEN = {
    "Lowercase": (byte_level(normalizer={"type": "Lowercase"}), NORMALIZER.format("Lowercase")),
    "NFD": (byte_level(normalizer={"type": "NFD"}), NORMALIZER.format("NFD")),
    "NFKD": (byte_level(normalizer={"type": "NFKD"}), NORMALIZER.format("NFKD")),
    "two normalizers": (byte_level(normalizer=normalizers(NFC, NFKC)), NORMALIZER.format("Sequence")),
    "an NFD within": (byte_level(normalizer=normalizers({"type": "NFD"})), NORMALIZER.format("NFD")),
    "untyped normalizers": (byte_level(normalizer={"normalizers": [NFC]}), NORMALIZER.format("without a type")),
    "no pre-tokenizer": (byte_level(pre_tokenizer=None), NONE),
    "no pre-tokenizer's name": (without(byte_level(), "pre_tokenizer"), NONE),
    "an empty list of pre-tokenizers": (byte_level(pre_tokenizer=pre_tokenizers()), NONE),
    "no words": (byte_level(pre_tokenizer=BYTES_AFTER), NO_WORDS),
    "Whitespace": (byte_level(pre_tokenizer={"type": "Whitespace"}), PRE_TOKENIZER.format("Whitespace")),
    "no bytes": (byte_level(pre_tokenizer=pre_tokenizers(SPLIT)), PRE_TOKENIZER.format("Split")),
    "bytes, then digits": (
        byte_level(pre_tokenizer=pre_tokenizers(SPLIT, BYTES_AFTER, DIGITS)),
        PRE_TOKENIZER.format("Digits"),
    ),
    "splits twice": (byte_level(pre_tokenizer=pre_tokenizers(SPLIT, GPT2)), AFTER_OTHERS),
    "splits twice by default": (byte_level(pre_tokenizer=pre_tokenizers(SPLIT, USE_REGEX_LEFT_OUT)), AFTER_OTHERS),
    "a prefix space after a split": (
        byte_level(pre_tokenizer=pre_tokenizers(SPLIT, {**BYTES_AFTER, "add_prefix_space": True})),
        PREFIX_SPACE,
    ),
    "digits": (byte_level(pre_tokenizer=pre_tokenizers(DIGITS, BYTES_AFTER)), NO_SPLIT),
    "digits, then a split": (byte_level(pre_tokenizer=pre_tokenizers(DIGITS, SPLIT, BYTES_AFTER)), NO_SPLIT),
    "digits together": (
        byte_level(pre_tokenizer=pre_tokenizers({**DIGITS, "individual_digits": False}, GPT2)),
        AFTER_OTHERS,
    ),
    "digits and a prefix space": (
        byte_level(pre_tokenizer=pre_tokenizers(DIGITS, {**GPT2, "add_prefix_space": True})),
        PREFIX_SPACE,
    ),
    "pairs of digits with NFKC": (byte_level(pre_tokenizer=split_then_bytes(NANOCHAT), normalizer=NFKC), NFKC_NUMBERS),
    "digits with NFKC": (byte_level(pre_tokenizer=pre_tokenizers(DIGITS, GPT2), normalizer=NFKC), NFKC_NUMBERS),
    "punctuation": (
        byte_level(pre_tokenizer=pre_tokenizers({"type": "Punctuation", "behavior": "Isolated"}, SPLIT, BYTES_AFTER)),
        NO_SPLIT,
    ),
    "removed": (byte_level(pre_tokenizer=split_then_bytes(PROVEN, behavior="Removed")), OTHER_SPLITS),
    "merged": (byte_level(pre_tokenizer=split_then_bytes(PROVEN, behavior="MergedWithNext")), OTHER_SPLITS),
    "inverted": (byte_level(pre_tokenizer=split_then_bytes(PROVEN, invert=True)), OTHER_SPLITS),
    "removed and inverted, where not all is matched": (
        byte_level(pre_tokenizer=split_then_bytes(*DEEPSEEK, behavior="Removed", invert=True)),
        OTHER_SPLITS,
    ),
    "the last split inverted": (
        byte_level(
            pre_tokenizer=pre_tokenizers(
                *split_then_bytes(*DEEPSEEK[:2])["pretokenizers"][:2],
                *split_then_bytes(DEEPSEEK[2], invert=True)["pretokenizers"],
            )
        ),
        OTHER_SPLITS,
    ),
    "possessive": (byte_level(pre_tokenizer=split_then_bytes(POSSESSIVE)), NOT_PROVEN.format([POSSESSIVE])),
    "the same split twice": (
        byte_level(pre_tokenizer=split_then_bytes(PROVEN, PROVEN)),
        NOT_PROVEN.format([PROVEN, PROVEN]),
    ),
    "splits in another order": (
        byte_level(pre_tokenizer=split_then_bytes(*DEEPSEEK[::-1])),
        NOT_PROVEN.format(list(DEEPSEEK[::-1])),
    ),
    "a split too few": (
        byte_level(pre_tokenizer=split_then_bytes(*DEEPSEEK[1:])),
        NOT_PROVEN.format(list(DEEPSEEK[1:])),
    ),
    "a string to split by": (
        byte_level(pre_tokenizer=pre_tokenizers({**SPLIT, "pattern": {"String": " "}}, BYTES_AFTER)),
        NOT_PROVEN.format([None]),
    ),
    "no splits": (byte_level(pre_tokenizer=pre_tokenizers(BYTES_AFTER)), NOT_PROVEN.format([])),
    "Unigram": ({**byte_level(), "model": UNIGRAM}, MODEL.format("Unigram")),
    "WordLevel": ({**byte_level(), "model": WORD_LEVEL}, MODEL.format("WordLevel")),
    "untyped Unigram": (without({**byte_level(), "model": UNIGRAM}, "model", "type"), MODEL.format("without a type")),
    "untyped WordLevel": (
        without({**byte_level(), "model": WORD_LEVEL}, "model", "type"),
        MODEL.format("without a type"),
    ),
    "dropout": (with_model(dropout=0.1), SETTING.format("dropout")),
    "prefix": (with_model(continuing_subword_prefix="##", merges=[]), SETTING.format("continuing_subword_prefix")),
    "suffix": (with_model(end_of_word_suffix="</w>", merges=[]), SETTING.format("end_of_word_suffix")),
    "byte_fallback": (
        with_model(byte_fallback=True),
        "is not used with the normalizers of this tokenizer (none) and byte_fallback",
    ),
    "a byte missing": (without(byte_level(), "model", "vocab", byte_characters()[0xF4]), BYTES.format(1)),
    "all bytes missing but one": (with_model(vocab={"a": 0}, merges=[]), BYTES.format(242)),
    "an id too large": (with_id((1 << 22) + 1), LARGE_ID.format("4,194,305")),
    "a merge twice": (byte_level([(b"a", b"a"), (b"aa", b"a"), (b"a", b"a")]), MERGE_TWICE),
}


@pytest.mark.parametrize(("tokenizer", "reason"), NOT_FOR_GIGATOKEN.values(), ids=NOT_FOR_GIGATOKEN)
def test_what_gigatoken_is_not_used_for(
    tokenizer: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = as_file(tokenizer)
    with pytest.raises(GigatokenUnfitError) as refused:
        make_encoder(file, "gigatoken", "token")
    assert refused.value.reason == reason
    assert str(refused.value) == f"gigatoken {reason}; use the engine `tokenizers`, or `auto`"
    with caplog.at_level(logging.WARNING):
        assert make_encoder(file, "auto", "token").name == "tokenizers"
    assert caplog.messages == [f"encoding with tokenizers, which is slower: {refused.value}"]


def legacy(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer with merges written as in most files that are some years old."""
    tokenizer["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    return tokenizer


def with_words(**settings: Any) -> dict[str, Any]:
    """A tokenizer with tokens that no merge makes, and a merge of characters that stand for no byte."""
    tokenizer = byte_level(MERGES)
    tokenizer["model"]["vocab"] |= {
        "hello": 400,
        "Ġhello": 401,
        "漢": 402,
        "ü": 403,
        "\u00a0": 404,
        "\u00a0\u00a0": 405,
    }
    tokenizer["model"]["merges"].append(["\u00a0", "\u00a0"])
    tokenizer["model"] |= settings
    return tokenizer


def lacking(tokenizer: dict[str, Any], *missing: int) -> dict[str, Any]:
    """The tokenizer without the tokens of some bytes."""
    for byte in missing:
        del tokenizer["model"]["vocab"][byte_characters()[byte]]
    return tokenizer


DIGIT_MERGES = [*MERGES, (b"1", b"2"), (b"3", b"4"), (b" ", b"1"), (b"12", b"34")]
NOTHING_SET = {"dropout": None, "continuing_subword_prefix": "", "end_of_word_suffix": "", "byte_fallback": False}
FOR_GIGATOKEN = {
    "no normalizer": byte_level(MERGES),
    "no normalizer's name": without(byte_level(MERGES), "normalizer"),
    "NFC": byte_level(MERGES, normalizer=NFC),
    "NFKC": byte_level(MERGES, normalizer=NFKC),
    "an empty list of normalizers": byte_level(MERGES, normalizer=normalizers()),
    "a list with NFC": byte_level(MERGES, normalizer=normalizers(NFC)),
    "a list in a list": byte_level(MERGES, normalizer=normalizers(normalizers(NFKC))),
    "a prefix space": byte_level(MERGES, pre_tokenizer={**GPT2, "add_prefix_space": True}),
    "words by default": byte_level(MERGES, pre_tokenizer=USE_REGEX_LEFT_OUT),
    "offsets not trimmed": byte_level(MERGES, pre_tokenizer={**GPT2, "trim_offsets": False}),
    "a split": byte_level(MERGES, pre_tokenizer=split_then_bytes(PROVEN)),
    "a split, removed": byte_level(MERGES, pre_tokenizer=split_then_bytes(PROVEN, behavior="Removed", invert=True)),
    "nanochat": byte_level(DIGIT_MERGES, pre_tokenizer=split_then_bytes(NANOCHAT)),
    "single digits": byte_level(MERGES, pre_tokenizer=pre_tokenizers(DIGITS, GPT2)),
    "single digits, with merges of some": byte_level(DIGIT_MERGES, pre_tokenizer=pre_tokenizers(DIGITS, GPT2)),
    "bytes missing that no text holds": lacking(byte_level(MERGES), 0xC0, 0xC1, *range(0xF5, 0x100)),
    "merges alike": byte_level([(b"a", b"b"), (b"b", b" "), (b"l", b"l"), (b"ll", b"o"), (b"l", b"lo"), (b"l", b"o")]),
    "three splits": byte_level(MERGES, pre_tokenizer=split_then_bytes(*DEEPSEEK)),
    "no list of added tokens": without(byte_level(MERGES), "added_tokens"),
    "an untyped model": without(byte_level(MERGES), "model", "type"),
    "nothing set": with_model(**NOTHING_SET),
    "no dropout": with_model(dropout=0.0),
    "legacy merges": legacy(byte_level(MERGES)),
    "legacy merges of spaces": legacy(with_words()),
    "words that merges do not reach": with_words(),
    "words before merges": with_words(ignore_merges=True),
    "merges before words": with_words(ignore_merges=False),
}


@pytest.mark.parametrize("tokenizer", FOR_GIGATOKEN.values(), ids=FOR_GIGATOKEN)
def test_what_gigatoken_is_used_for(tokenizer: dict[str, Any]) -> None:
    texts = ["ab ab", "hello hello", "ﬁ ä a\u0308 \u00a0\u00a0", "it's 12345 <|x|>\r\n  x", "漢字 ü", ""]
    own = tokenizers.Tokenizer.from_str(json.dumps(tokenizer)).encode_batch(texts, add_special_tokens=False)
    encoder = make_encoder(as_file(tokenizer), "auto", "text")
    found = encoder.encode(pa.array(texts, pa.large_string()))
    assert encoder.name == "gigatoken"
    assert [found.ids[a:b].tolist() for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)] == [
        encoding.ids for encoding in own
    ]
    assert isinstance(encoder, GigatokenEncoder)
    assert not encoder.reference_bytes


def test_the_largest_id() -> None:
    """Not encoded with: that would take 240 MB."""
    left = json.loads(gigatoken_input(as_file(with_id(1 << 22)), "text").json)
    assert left["model"]["vocab"]["word"] == 4_194_304


def test_what_is_left_of_a_tokenizer() -> None:
    """Tokens of no bytes are left out, since gigatoken might read bytes into them; normalizing is done before it."""
    tokenizer = byte_level([(b"a", b"b")], normalizer=NFKC, added_tokens=[added_token(500, "<|x|>")])
    tokenizer["model"]["vocab"] |= {"漢": 300, "漢ab": 301, "word": 302}
    tokenizer["model"]["merges"].append(["漢", "ab"])
    tokenizer["model"]["unk_token"] = "word"
    found = gigatoken_input(as_file(tokenizer), "text")
    assert json.loads(found.json) == {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": GPT2,
        "model": {
            "type": "BPE",
            "ignore_merges": False,
            "vocab": byte_level()["model"]["vocab"] | {"ab": 256, "word": 302},
            "merges": [["a", "b"]],
        },
    }
    assert found.form == "NFKC"


@pytest.mark.parametrize(
    ("special_tokens", "raw", "normalized", "text"),
    [
        ("token", ["<|x|>", "+"], ["ﬁ a\u0308", "|y|"], set()),
        # Tokens that are text hide others.
        ("text", ["<|x|>", "+"], ["ﬁ a\u0308", "|y|"], {"<|x|>", "|y|"}),
    ],
)
def test_tokens_that_are_looked_for(
    special_tokens: SpecialTokens, raw: list[str], normalized: list[str], text: set[str]
) -> None:
    """One without a name is nowhere."""
    added = [
        added_token(256, "<|x|>"),
        added_token(257, "+", special=False),
        added_token(258, "ﬁ a\u0308", special=False, normalized=True),
        added_token(259, "|y|", normalized=True),
        added_token(260, "", special=False),
    ]
    found = gigatoken_input(as_file(byte_level(MERGES, normalizer=NFC, added_tokens=added)), special_tokens)
    assert [token["content"] for token in found.raw_tokens] == raw
    assert [token["content"] for token in found.normalized_tokens] == normalized
    assert found.text_tokens == text
    assert not found.whole_documents


def test_special_tokens_that_are_text_are_not_looked_for_alone() -> None:
    added = [added_token(256, "<|x|>"), added_token(257, "<|y|>", normalized=True)]
    found = gigatoken_input(as_file(byte_level(MERGES, added_tokens=added)), "text")
    assert (found.raw_tokens, found.normalized_tokens) == ((), ())


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
@pytest.mark.parametrize(("special_tokens", "whole"), [("token", True), ("text", False)])
def test_flags_of_tokens_send_documents_to_the_reference_whole(
    flag: str, special_tokens: SpecialTokens, whole: bool
) -> None:
    added = [added_token(256, "<|x|>", **{flag: True}), added_token(257, "+", special=False)]
    found = gigatoken_input(as_file(byte_level(MERGES, added_tokens=added)), special_tokens)
    assert found.whole_documents is whole


APART = r"the added tokens 'fi' and '\\ufb01' of this tokenizer are one once they are normalized, and tokenizers takes"


@pytest.mark.parametrize("engine", ["tokenizers", "gigatoken", "auto"])
@pytest.mark.parametrize("normalizer", [NFKC, {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, NFKC]}])
def test_two_tokens_that_are_one_once_normalized_are_refused(normalizer: dict[str, Any], engine: Engine) -> None:
    """`tokenizers` finds either of them, and which one differs from one load of the file to the next."""
    names = ["fi", "ﬁ"]
    added = [added_token(256 + n, name, special=n > 0, normalized=True) for n, name in enumerate(names)]
    tokenizer = byte_level(normalizer=normalizer, added_tokens=added)
    found = [tokenizers.Tokenizer.from_str(json.dumps(tokenizer)).encode("fi").ids for _ in range(60)]
    assert sorted(set(map(tuple, found))) == [(256,), (257,)]
    if engine != "gigatoken" or normalizer is NFKC:
        with pytest.raises(UsageError, match=APART):
            make_encoder(as_file(tokenizer), engine, "text")
    only_special = [{**token, "special": True} for token in added]
    make_encoder(as_file({**tokenizer, "added_tokens": only_special}), "tokenizers", "text")
    with pytest.raises(UsageError, match=APART):
        make_encoder(as_file({**tokenizer, "added_tokens": only_special}), "tokenizers", "token")
    for form in (NFC, None):
        make_encoder(as_file({**tokenizer, "normalizer": form}), "tokenizers", "text")


@pytest.mark.parametrize("special_tokens", MODES)
def test_without_names_of_added_tokens_none_is_looked_for(special_tokens: SpecialTokens) -> None:
    for added in ([], [added_token(256, "", special=False)]):
        found = gigatoken_input(as_file(byte_level(MERGES, added_tokens=added)), special_tokens)
        assert (found.raw_tokens, found.normalized_tokens) == ((), ())


@pytest.mark.parametrize(
    ("special_tokens", "special", "cut"),
    [("text", True, True), ("text", False, False), ("token", True, False), ("token", False, False)],
)
def test_documents_are_cut_unless_a_token_is_looked_for_across_a_cut(
    special_tokens: SpecialTokens, special: bool, cut: bool
) -> None:
    file = as_file(byte_level(MERGES, added_tokens=[added_token(256, "d a", special=special)]))
    assert (where_to_cut(file, special_tokens) == "before") is cut
