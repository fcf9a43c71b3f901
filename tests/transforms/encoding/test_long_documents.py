"""Long documents are encoded in pieces, to the ids of the whole."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tokenizers

from tests.support.small_tokenizers import GPT2, POSSESSIVE, added_token, as_file, byte_level, split_then_bytes
from transforms.encoding import long_documents
from transforms.encoding.encoders import GigatokenEncoder, ReferenceEncoder
from transforms.encoding.long_documents import PIECE_BYTES, any_long, piece_ends, where_to_cut
from transforms.encoding.splits import PROVEN_SPLITS
from transforms.errors import BroetchenError

BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
MERGES = [(b"a", b"b"), (b" ", b"a"), (b" a", b"b"), (b"e", b"r"), (b" ", b" "), (b"d", b" "), (b"\n", b"\n")]
PARTS = [
    *[
        "a",
        "b",
        "er",
        "d",
        "Z",
        " ",
        " ",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u00a0",
        "'s",
        "'ll",
        "'S",
        "12",
        "7",
        "ü",
        "u\u0308",
    ],
    *["fi", "日本", "🙂", "\u0301", "/", ".", "...", "-", "İ", "ſ", "¼", "\u3000", "<|x|>", "ab er", " a b a b "],
]
PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    **{name: split_then_bytes(*patterns) for name, patterns in PROVEN_SPLITS.items()},
    "bytes": GPT2,
    "prefix space": {**GPT2, "add_prefix_space": True},
}


def texts_of(chance: random.Random, number: int) -> list[str]:
    return ["".join(chance.choices(PARTS, k=chance.randrange(60))) for _ in range(number)]


@pytest.mark.parametrize("form", [None, "NFC", "NFKC"])
@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_pieces_give_the_ids_of_the_whole(monkeypatch: pytest.MonkeyPatch, name: str, form: str | None) -> None:
    monkeypatch.setattr(long_documents, "PIECE_BYTES", 3)
    texts = texts_of(random.Random(f"{name} {form}"), 400)
    tokenizer = byte_level(
        MERGES,
        pre_tokenizer=PRE_TOKENIZERS[name],
        normalizer={"type": form} if form else None,
        added_tokens=[added_token(1000, "<|x|>")],
    )
    whole = tokenizers.Tokenizer.from_str(json.dumps(tokenizer))
    expected = [encoding.ids for encoding in whole.encode_batch(texts, add_special_tokens=False)]
    array = pa.array(texts, pa.large_string())
    data, offsets = np.frombuffer(array.buffers()[2], np.uint8), np.frombuffer(array.buffers()[1], np.int64)
    assert len(piece_ends(data, offsets, cut=True)) > 2 * len(texts)
    for engine in (ReferenceEncoder, GigatokenEncoder):
        encoded = engine(as_file(tokenizer), "token").encode(array)
        assert [part.tolist() for part in np.split(encoded.ids, encoded.offsets[1:-1])] == expected


@pytest.mark.parametrize(
    ("token", "cut"),
    [
        (added_token(1000, "<|x|>"), True),
        (added_token(1000, "<|x|>", lstrip=True), True),
        (added_token(1000, "d", rstrip=True), False),
        (added_token(1000, "d a"), False),
    ],
)
def test_tokens_that_may_lie_across_a_cut_forbid_it(
    monkeypatch: pytest.MonkeyPatch, token: dict[str, Any], cut: bool
) -> None:
    monkeypatch.setattr(long_documents, "PIECE_BYTES", 3)
    tokenizer = byte_level(MERGES, added_tokens=[token])
    assert (where_to_cut(as_file(tokenizer), "token") == "before") is cut
    assert where_to_cut(as_file(tokenizer), "text") == "before"
    texts = texts_of(random.Random(token["content"]), 200)
    whole = tokenizers.Tokenizer.from_str(json.dumps(tokenizer))
    expected = [encoding.ids for encoding in whole.encode_batch(texts, add_special_tokens=False)]
    encoded = ReferenceEncoder(as_file(tokenizer), "token").encode(pa.array(texts, pa.large_string()))
    assert [part.tolist() for part in np.split(encoded.ids, encoded.offsets[1:-1])] == expected


def test_a_document_that_cannot_be_cut_is_refused_before_it_takes_gigabytes() -> None:
    tokenizer = as_file(byte_level(MERGES))
    unsplit = as_file(byte_level(MERGES, pre_tokenizer={**GPT2, "use_regex": False}))
    for engine, text in (
        (ReferenceEncoder(tokenizer, "text"), "x" * (17 << 20)),
        (GigatokenEncoder(tokenizer, "text"), "x" * (17 << 20)),
        (ReferenceEncoder(unsplit, "text"), "a b " * (17 << 18)),
    ):
        with pytest.raises(BroetchenError, match=r"a document of 17 MiB has 17 MiB in one piece, .* it begins with"):
            engine.encode(pa.array(["short", text], pa.large_string()))


WORDS = [
    "##a",
    "##b",
    "##er",
    "##d",
    "a",
    "b",
    "er",
    "d",
    "Z",
    "12",
    "7",
    "u",
    "fi",
    "日",
    "本",
    ".",
    "/",
    "-",
    "'",
    "[UNK]",
]
WORD_PIECE = {
    "type": "WordPiece",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
    "vocab": {word: number for number, word in enumerate(WORDS)},
}
PIECES = ["a", "b", "er", "▁", "▁a", "▁ab", "d", "▁d", "Z", "1", "2", "7", "ü", "日", "本", "\n", "\t", ".", "'", "s"]
UNIGRAM = {
    "type": "Unigram",
    "unk_id": 0,
    "vocab": [["<unk>", 0.0], *([piece, -1.0 - number / 7] for number, piece in enumerate(PIECES))],
}


@pytest.mark.parametrize(
    ("model", "pre_tokenizer", "normalizer"),
    [
        (WORD_PIECE, {"type": "BertPreTokenizer"}, {"type": "BertNormalizer", **dict.fromkeys(
            ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"), True)}),
        (WORD_PIECE, {"type": "Whitespace"}, {"type": "Sequence", "normalizers": [
            {"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}]}),
        (WORD_PIECE, {"type": "WhitespaceSplit"}, {"type": "NFKD"}),
        (UNIGRAM, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}, {"type": "NFC"}),
        (UNIGRAM, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}, None),
        (UNIGRAM, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"}, None),
        (None, split_then_bytes(POSSESSIVE), None),
        (None, split_then_bytes(BLOOM), None),
        (None, split_then_bytes(POSSESSIVE, behavior="Removed", invert=True), None),
        (None, {"type": "Sequence", "pretokenizers": [
            {"type": "Punctuation", "behavior": "Contiguous"}, GPT2, {"type": "Digits", "individual_digits": False},
            *split_then_bytes("[0-9][0-9][0-9]")["pretokenizers"][:1]]}, None),
        (None, split_then_bytes("[0-9][0-9][0-9]", POSSESSIVE), {"type": "NFD"}),
    ],
)  # fmt: skip
def test_other_tokenizers_are_cut_as_well(
    monkeypatch: pytest.MonkeyPatch,
    model: dict[str, Any] | None,
    pre_tokenizer: dict[str, Any],
    normalizer: dict[str, Any] | None,
) -> None:
    """These are tokenizers that gigatoken does not encode."""
    monkeypatch.setattr(long_documents, "PIECE_BYTES", 3)
    tokenizer = byte_level(MERGES, pre_tokenizer=pre_tokenizer, normalizer=normalizer)
    tokenizer["model"] = model or tokenizer["model"]
    file = as_file(tokenizer)
    assert where_to_cut(file, "text") == "before"
    texts = texts_of(random.Random(json.dumps(pre_tokenizer)), 1000)
    whole = tokenizers.Tokenizer.from_str(file.json)
    expected = [encoding.ids for encoding in whole.encode_batch(texts, add_special_tokens=False)]
    encoded = ReferenceEncoder(file, "text").encode(pa.array(texts, pa.large_string()))
    assert [part.tolist() for part in np.split(encoded.ids, encoded.offsets[1:-1])] == expected


@pytest.mark.parametrize(
    ("pre_tokenizer", "normalizer"),
    [
        (None, None),
        ({**GPT2, "use_regex": False}, None),
        ({"type": "Metaspace", "replacement": "▁", "split": False}, None),
        (split_then_bytes(r"\S+ \S+"), None),
        (split_then_bytes(r"[a-z ]+|\S", POSSESSIVE), None),
        (split_then_bytes(POSSESSIVE, behavior="MergedWithPrevious"), None),
        ({"type": "Split", "pattern": {"String": "x"}, "behavior": "Isolated", "invert": False}, None),
        (GPT2, {"type": "Replace", "pattern": {"String": "a b"}, "content": "ab"}),
        (GPT2, {"type": "Strip", "strip_left": True, "strip_right": False}),
        (GPT2, {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend", "prepend": "x"}]}),
    ],
)
def test_what_is_not_sure_to_split_there_is_not_cut(
    pre_tokenizer: dict[str, Any] | None, normalizer: dict[str, Any] | None
) -> None:
    file = as_file(byte_level(MERGES, pre_tokenizer=pre_tokenizer, normalizer=normalizer))
    assert where_to_cut(file, "text") == "nowhere"


@pytest.mark.parametrize("name", ["ﬁ a", "É a", "a\u0301 b", "a b"])
def test_a_token_that_normalization_may_make_hold_a_cut_forbids_it(name: str) -> None:
    tokens = [added_token(1000, name, normalized=True, special=False)]
    lower = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, {"type": "StripAccents"}]}
    assert where_to_cut(as_file(byte_level(MERGES, normalizer=lower, added_tokens=tokens)), "text") == "nowhere"


def test_short_documents_stay_as_they_are() -> None:
    assert not any_long(np.array([0, 5, 5, PIECE_BYTES], np.int64))
    assert not any_long(np.zeros(1, np.int64))
    assert any_long(np.array([0, 5, PIECE_BYTES + 6], np.int64))
