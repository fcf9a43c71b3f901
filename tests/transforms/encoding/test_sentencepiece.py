"""BPE in SentencePiece's manner: both engines give the same ids, or gigatoken is not used, and says why."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from tests.campaign.engines.draw import draw_sentencepiece, draw_texts
from tests.support.small_tokenizers import (
    BYTE_TOKENS,
    SENTENCEPIECE_FORMS,
    added_token,
    as_file,
    byte_level,
    sentencepiece_like,
)
from transforms.encoding import long_documents
from transforms.encoding.encoders import GigatokenEncoder, ReferenceEncoder
from transforms.encoding.gigatoken import gigatoken_input
from transforms.encoding.long_documents import where_to_cut
from transforms.encoding.sentencepiece import sentencepiece_form, with_prefixes
from transforms.encoding.unfit import GigatokenUnfitError
from transforms.errors import BroetchenError
from transforms.segments.encoded import first_difference
from transforms.segments.segments import Segments, spans_of
from transforms.tokenizer.spec import SpecialTokens

MODES: list[SpecialTokens] = ["text", "token"]
WORDS = ["▁", "▁▁", "▁a", "a", "b", "ab", "▁ab", "er", "▁the", "the"]
MERGES = [("a", "b"), ("▁", "ab"), ("e", "r"), ("▁", "t"), ("h", "e"), ("▁t", "he"), ("▁", "▁"), ("t", "he")]
TEXTS = [
    *["", " ", "  ", "a", " a", "a b", "ab  the ", "\n", "\t", "\nab", "ab\n\nthe", "▁ab", "a▁b", "\u2581 a", "x\x00y"],
    *[
        "für",
        "漢字 the",
        "🩷 ab",
        "\U00018dc3-s",
        "e\u0301 b",
        "ä ö",
        "12 ab 34",
        "<s>ab</s> the",
        "<0x0A>",
        "<unk> ab",
    ],
]


def large(texts: list[str]) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def assert_alike(tokenizer: dict[str, Any], mode: SpecialTokens, texts: list[str]) -> None:
    file = as_file(tokenizer)
    fast, reference = GigatokenEncoder(file, mode), ReferenceEncoder(file, mode)
    if first_difference(reference.encode(large(texts)), fast.encode(large(texts))) is None:
        return
    for text in texts:
        assert fast.encode(large([text])).ids.tolist() == reference.encode(large([text])).ids.tolist(), repr(text)
    raise AssertionError(texts)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", SENTENCEPIECE_FORMS)
def test_engines_agree(form: str, mode: SpecialTokens) -> None:
    added = [
        added_token(0, "<unk>"),
        added_token(1, "<s>"),
        added_token(2, "</s>"),
        added_token(900, "<x>", special=False),
        added_token(901, "▁▁▁", special=False),
        *(added_token(902 + length, "\n" * length, special=False) for length in range(2, 6)),
    ]
    tokenizer = sentencepiece_like(MERGES, form=form, more=["abb", "▁thea"], added_tokens=added)
    chance = random.Random(form)
    parts = [*TEXTS, *WORDS, "<x>", "   ", "\n\n\n"]
    texts = TEXTS + ["".join(chance.choices(parts, k=chance.randrange(1, 12))) for _ in range(2000)]
    assert_alike(tokenizer, mode, texts)


@pytest.mark.parametrize("seed", range(8))
def test_engines_agree_with_random_models(seed: int) -> None:
    """Merges that cross words, in any order; tokens that no merge makes; added tokens of all kinds."""
    chance, tried = random.Random(seed), 0
    for _ in range(40):
        _, tokenizer = draw_sentencepiece(chance)
        texts = draw_texts(chance, tokenizer, 60)
        # Where added tokens overlap by the white space that they take, the reference itself gives up.
        with contextlib.suppress(GigatokenUnfitError, BroetchenError):
            assert_alike(tokenizer, chance.choice(MODES), texts)
            tried += 1
    assert tried > 10


@pytest.mark.parametrize("form", SENTENCEPIECE_FORMS)
def test_pieces_give_the_ids_of_the_whole(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    tokenizer = sentencepiece_like(MERGES, form=form, added_tokens=[added_token(900, "<x>", special=False)])
    file, chance = as_file(tokenizer), random.Random(form)
    assert where_to_cut(file, "text") == ("over" if form == "Llama-2" else "before")
    texts = ["".join(chance.choices([*TEXTS, *WORDS, " ab the a", "<x>"], k=8)) for _ in range(1000)]
    whole = [engine(file, "text").encode(large(texts)) for engine in (ReferenceEncoder, GigatokenEncoder)]
    monkeypatch.setattr(long_documents, "PIECE_BYTES", 3)
    pieces = [engine(file, "text").encode(large(texts)) for engine in (ReferenceEncoder, GigatokenEncoder)]
    for one, other in itertools.combinations([*whole, *pieces], 2):
        assert first_difference(one, other) is None


@pytest.mark.parametrize(
    ("tokenizer", "where"),
    [
        (sentencepiece_like([*MERGES, ("b", "▁ab")]), "nowhere"),
        (sentencepiece_like([*MERGES, ("b", "▁ab")], form="Metaspace"), "before"),
        # No merge makes it.
        (sentencepiece_like(MERGES, more=["b▁a"]), "over"),
        (sentencepiece_like([*MERGES, (".", "▁")]), "over"),
        (sentencepiece_like(MERGES, added_tokens=[added_token(900, " x", special=False)]), "nowhere"),
        (sentencepiece_like(MERGES, form="Yi", added_tokens=[added_token(900, " x", special=False)]), "before"),
        (sentencepiece_like(MERGES, form="Yi", added_tokens=[added_token(900, "a x", special=False)]), "nowhere"),
        (sentencepiece_like(MERGES, form="Yi", added_tokens=[added_token(900, "a x")]), "before"),
    ],
)
def test_where_documents_can_be_cut(tokenizer: dict[str, Any], where: str) -> None:
    assert where_to_cut(as_file(tokenizer), "text") == where


def changed(**model: Any) -> dict[str, Any]:
    tokenizer = sentencepiece_like(MERGES)
    tokenizer["model"] |= model
    return tokenizer


def lacking(*tokens: str) -> dict[str, Any]:
    tokenizer = sentencepiece_like(MERGES)
    for token in tokens:
        del tokenizer["model"]["vocab"][token]
    return tokenizer


def normalized(*, content: str, form: str = "Yi", special: bool = False) -> dict[str, Any]:
    token = added_token(900, content, special=special, normalized=True)
    return sentencepiece_like(MERGES, form=form, added_tokens=[token])


@pytest.mark.parametrize(
    ("tokenizer", "reason"),
    [
        (lacking("<0xE2>"), "needs a token for each byte that text may hold, and 0xe2 has none here"),
        (lacking("<0x41>"), "needs a token for each byte that text may hold, and 0x41 has none here"),
        (sentencepiece_like(MERGES, more=["<0x0a>"]), "would take the token <0x0a> for one of a byte"),
        (sentencepiece_like(MERGES, more=["<0x+A>"]), "would take the token <0x+A> for one of a byte"),
        (sentencepiece_like([*MERGES, MERGES[0]]), "needs each merge once, and this tokenizer has one twice"),
        (sentencepiece_like([*MERGES, ("<0x41>", "a")]), "does no merges of the tokens for bytes"),
        (
            changed(vocab={**sentencepiece_like(MERGES)["model"]["vocab"], "zz": 5}),
            "needs an id for each token, and two of this tokenizer's have one",
        ),
        (
            changed(ignore_merges=True),
            "does not do BPE with ignore_merges, as this tokenizer sets, and byte_fallback",
        ),
        (
            changed() | {"normalizer": {"type": "NFKC"}},
            "is not used with the normalizers of this tokenizer (NFKC) and byte_fallback",
        ),
        (
            changed() | {"pre_tokenizer": {"type": "Whitespace"}},
            "is not used with the pre-tokenizer Whitespace of this tokenizer and byte_fallback",
        ),
        (
            changed() | {"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": "_"}},
            "knows Metaspace with ▁ alone",
        ),
        (
            normalized(content="ab", form="Llama-2"),
            "is not used where added tokens are normalized to others, as by this tokenizer",
        ),
        (normalized(content="a b"), "is not used where added tokens are normalized to others, as by this tokenizer"),
    ],
)
def test_what_gigatoken_is_not_used_for(tokenizer: dict[str, Any], reason: str) -> None:
    with pytest.raises(GigatokenUnfitError) as refused:
        gigatoken_input(as_file(tokenizer), "text")
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "tokenizer",
    [
        lacking("<0x61>", "<0xC0>", "<0xF5>", "<0x20>"),
        normalized(content="ab"),
        normalized(content="ab", form="Llama-2", special=True),
        changed(unk_token=None, fuse_unk=False),
    ],
)
def test_near_misses_are_encoded_alike(tokenizer: dict[str, Any]) -> None:
    assert_alike(tokenizer, "text", [*TEXTS, "x ab yab"])


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("whole", [sentencepiece_like(MERGES), byte_level([(b"a", b"b")])])
def test_two_added_tokens_with_one_id_are_left_to_the_reference(whole: dict[str, Any], special: bool) -> None:
    """`tokenizers` gives an unknown token the next id by the vocabulary's size, and finds only one of the two."""
    tokenizer = copy.deepcopy(whole)
    free = len(tokenizer["model"]["vocab"])
    tokenizer["model"]["vocab"]["zzz"] = free + 1
    tokenizer["added_tokens"] = [added_token(free + 1, "zzz", special=special), added_token(7, "<y>", special=False)]
    assert len({Tokenizer.from_str(json.dumps(tokenizer)).token_to_id(name) for name in ("zzz", "<y>")}) == 1
    with pytest.raises(GigatokenUnfitError, match="an id for each added token, and two of this tokenizer's have one"):
        GigatokenEncoder(as_file(tokenizer), "text")


def test_what_no_merge_makes_is_left_out() -> None:
    form = sentencepiece_form(sentencepiece_like([*MERGES, ("q▁", "z")], more=["q▁", "thing"]))
    assert {"ab", "▁the", *BYTE_TOKENS} <= form.model["vocab"].keys()
    assert not {"thing", "q▁", "q▁z", "<s>"} & form.model["vocab"].keys()
    assert ("q▁", "z") not in form.model["merges"]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("always", " ab|X| c|| ▁d| e"),
        ("unless marked", " ab|X| c||▁d| e"),
        ("first unless marked", " ab|X|c||▁d| e"),
    ],
)
def test_where_a_space_is_put(prefix: Any, expected: str) -> None:
    """Before stretches that are not empty; the fifth is the second document, and the last begins with one."""
    texts = ["abXc", "", "▁d", " e" if prefix != "always" else "e"]
    data = np.frombuffer("".join(texts).encode(), np.uint8)
    offsets = np.concatenate([[0], np.cumsum([len(text.encode()) for text in texts])])
    segments = Segments(offsets)
    segments.insert(spans_of([(2, 3)]), 2, np.array([9], np.uint32))
    text, bounds = with_prefixes(data, segments, prefix)
    parts = [text[begin:end].tobytes().decode() for begin, end in itertools.pairwise(bounds.tolist())]
    assert "|".join(parts) == expected
