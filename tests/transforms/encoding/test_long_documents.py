"""Long documents are encoded in pieces, to the ids of the whole."""

from __future__ import annotations

import json
import random
import unicodedata
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tokenizers

from tests.support.small_tokenizers import GPT2, added_token, as_file, byte_level, split_then_bytes
from transforms.encoding import long_documents
from transforms.encoding.encoders import GigatokenEncoder, ReferenceEncoder
from transforms.encoding.long_documents import PIECE_BYTES, can_be_cut, cuts_in, first_cut, last_cut, piece_ends
from transforms.encoding.splits import PROVEN_SPLITS
from transforms.errors import BroetchenError

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
    assert can_be_cut([token]) == cut
    tokenizer = byte_level(MERGES, added_tokens=[token])
    texts = texts_of(random.Random(token["content"]), 200)
    whole = tokenizers.Tokenizer.from_str(json.dumps(tokenizer))
    expected = [encoding.ids for encoding in whole.encode_batch(texts, add_special_tokens=False)]
    encoded = ReferenceEncoder(as_file(tokenizer), "token").encode(pa.array(texts, pa.large_string()))
    assert [part.tolist() for part in np.split(encoded.ids, encoded.offsets[1:-1])] == expected


def test_a_document_that_cannot_be_cut_is_refused_before_it_takes_gigabytes() -> None:
    tokenizer = as_file(byte_level(MERGES))
    whitespace = as_file(byte_level(MERGES, pre_tokenizer={"type": "Whitespace"}))
    for engine, text in (
        (ReferenceEncoder(tokenizer, "text"), "x" * (17 << 20)),
        (GigatokenEncoder(tokenizer, "text"), "x" * (17 << 20)),
        (ReferenceEncoder(whitespace, "text"), "a b " * (17 << 18)),
    ):
        with pytest.raises(BroetchenError, match=r"a document of 17 MiB has 17 MiB in one piece, .* it begins with"):
            engine.encode(pa.array(["short", text], pa.large_string()))


@pytest.mark.parametrize("word", ["Кириллица ", "한국어 ", "für "])
@pytest.mark.parametrize("size", [3, 100, 1000])
def test_cuts_are_found_before_and_after_any_place(word: str, size: int) -> None:
    """Also where the next one is far."""
    text = f"{'漢' * size}{word}{word}{'…' * size}{word}a b{'漢' * size}".encode()
    data = np.frombuffer(text, np.uint8)
    found = cuts_in(data, 0, len(data)).tolist()
    assert found == [
        place
        for place in range(1, len(data) - 1)
        if text[place] == 0x20
        and unicodedata.category(text[:place].decode()[-1])[0] == "L"
        and unicodedata.category(text[place + 1 :].decode()[0])[0] == "L"
    ]
    assert len(found) > 2
    starts = [place for place in range(len(data)) if data[place] & 0xC0 != 0x80]
    for place in starts:
        after = first_cut(data, place, len(data))
        before = last_cut(data, 0, place)
        # The characters on both sides of it lie behind, or before.
        assert after == next((cut for cut in found if cut - len(text[:cut].decode()[-1].encode()) >= place), None)
        ends = (cut for cut in reversed(found) if cut + 1 + len(text[cut + 1 :].decode()[0].encode()) <= place)
        assert before == next(ends, None)


def test_short_documents_stay_as_they_are() -> None:
    offsets = np.array([0, 5, 5, PIECE_BYTES], np.int64)
    assert piece_ends(np.zeros(PIECE_BYTES, np.uint8), offsets, cut=True) is offsets
