"""The table of agreed code points is proven here, on every code point that it lists.

Which splits a regular expression makes depends on the classes of code points, so each one is encoded in contexts that
tell all classes apart, by tokenizers whose merges join it to whatever may stand beside it: where one engine splits and
the other does not, the ids differ.
"""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator

import gigatoken
import numpy as np
import pyarrow as pa
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

from tests.support.corpora import TOKENIZER
from tests.support.small_tokenizers import GPT2, POSSESSIVE, byte_level, split_then_bytes
from transforms.encoding import code_points
from transforms.encoding.code_points import agreed, documents_at, inert, non_ascii, normalize
from transforms.encoding.encoded import first_difference
from transforms.encoding.encoders import GigatokenEncoder, ReferenceEncoder
from transforms.encoding.splits import PROVEN_SPLITS
from transforms.tokenizer.file import load_tokenizer

AGREED = np.flatnonzero(agreed()).tolist()
FORMS: tuple[code_points.Form, ...] = ("NFC", "NFKC")
NORMALIZERS: dict[code_points.Form, Callable[[str], str]] = {
    "NFC": normalizers.NFC().normalize_str,
    "NFKC": normalizers.NFKC().normalize_str,
}

# Alone and between letters, digits, spaces, punctuation, marks and line ends; after and before what contractions,
# casing and repetition hang on. "~" and line ends keep the contexts of one code point apart.
CONTEXTS = """
c|aca|1c1|!c!| c| ca|c a|  c|c  a|cc|cccc1111|Ac|cA|'c|'ca|a'c|c's|c'S|c-s|\nc|c\n|\rc|c/|\u0301c|c\u0301|中c中
""".strip("\n").split("|")
# For letters without case, of which there are many: the classes that they could be mistaken for.
FEW_CONTEXTS = ["c", "aca", "1c1", "! c!", " ca", "c's", "Ac", "c\u0301", "中c"]
NEIGHBOURS = [
    b"a",
    b"A",
    b"1",
    b"!",
    b" ",
    b"'",
    b"s",
    b"S",
    b"-",
    b"/",
    b"\n",
    b"\r",
    *(bytes([b]) for b in b"\xcc\x81\xe4\xad"),
]


COMPOSING = (
    "aAeo ä…\u00a0ﬁ²가\u1100\u1161\u11a8\u0301\u0308\u0323\u0345\u093c\u0915漢Ａ😀\U0001d15e\U00011935\U00011930"
)


def in_contexts(code_point: int) -> str:
    few = 0x3400 <= code_point < 0xA4D0 or 0xAC00 <= code_point < 0xF900  # Han, Yi, Hangul, private use
    return "\n~x".join(context.replace("c", chr(code_point)) for context in (FEW_CONTEXTS if few else CONTEXTS))


def probe(*patterns: str) -> str:
    """A tokenizer that shows where it splits: it merges any byte with any that ends or begins a neighbour."""
    pairs = {}
    for neighbour, byte in itertools.product(NEIGHBOURS, range(256)):
        pairs[neighbour + bytes([byte])] = (neighbour, bytes([byte]))
        pairs[bytes([byte]) + neighbour] = (bytes([byte]), neighbour)
    return json.dumps(byte_level(pairs.values(), pre_tokenizer=split_then_bytes(*patterns) if patterns else GPT2))


def unequal(tokenizer_json: str, candidates: Iterable[int]) -> list[str]:
    """The code points, in hexadecimal, that the engines themselves encode differently."""
    reference = tokenizers.Tokenizer.from_str(tokenizer_json)
    engine = gigatoken.Tokenizer.from_json(tokenizer_json)

    def differing(texts: list[str]) -> list[int]:
        expected = [encoding.ids for encoding in reference.encode_batch_fast(texts, add_special_tokens=False)]
        found = engine.encode_batch_list([text.encode() for text in texts], parallel=False)
        return [i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b]

    groups = list(itertools.batched(candidates, 50))
    suspects = differing(["\n~x".join(map(in_contexts, group)) for group in groups])
    single = [code_point for i in suspects for code_point in groups[i]]
    return [f"{single[i]:X}" for i in differing([in_contexts(code_point) for code_point in single])]


def test_the_table():
    assert agreed().shape == (0x110000,)
    assert agreed()[:0x180].all()
    assert 65_000 < len(AGREED) < 66_000
    assert all(
        agreed()[ord(character)]
        for character in "äöüßÄÖÜẞ„“”–—…€₿™②ﬁＡ한글漢字ひらがな😀🧑‍🚀\u0301\ufeff\u180e\u0085\0"
    )
    # Newer than some library's tables, not assigned, not characters, or not to be had in UTF-8
    assert not any(agreed()[[0x18DC3, 0x1E036, 0x10793, 0xA7CB, 0x1C89, 0x0378, 0xFFFE, 0xFDD0, 0xD800, 0x10FFFF]])
    with pytest.raises(ValueError, match="read-only"):
        agreed()[0] = False


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["gpt2", "o200k", "deepseek3"])
def test_engines_split_alike_on_every_agreed_code_point(scheme):
    """These three tell apart all the classes that any scheme does: letters by case, marks, numbers, symbols, spaces."""
    assert unequal(probe(*(PROVEN_SPLITS[scheme] if scheme != "gpt2" else ())), AGREED) == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", PROVEN_SPLITS)
def test_engines_split_alike_in_every_scheme(scheme):
    """On all of Latin, Greek and Cyrillic, punctuation and symbols, and on a part of the rest."""
    chosen = [*range(0x530), *range(0x1E00, 0x2400), *AGREED[::37]]
    assert unequal(probe(*PROVEN_SPLITS[scheme]), [code_point for code_point in chosen if agreed()[code_point]]) == []


def test_the_comparison_finds_differences():
    assert unequal(probe(), [0x61, 0xA7CE, 0xE4, 0xA7CF]) == ["A7CE", "A7CF"]
    # gigatoken takes this one for cl100k's; in the regular expressions of `tokenizers`, "{1,3}+" repeats without end
    assert "31" in unequal(probe(POSSESSIVE), range(0x80))


@pytest.mark.parametrize("form", FORMS)
def test_normalizers_agree_on_every_agreed_code_point(form):
    contexts = ("c", "ac", "c\u0301", "c\u0327\u0301", "a\u0301c", "a\u0327c", "e\u0334c", "\u1100c", "가c")
    differing = [
        f"{code_point:X}"
        for code_point in AGREED
        for text in [context.replace("c", chr(code_point)) for context in contexts]
        if NORMALIZERS[form](text) != unicodedata.normalize(form, text)
    ]
    assert differing == []


def composition_pairs() -> Iterator[str]:
    for code_point in range(0x110000):
        mapping = unicodedata.decomposition(chr(code_point)).split()
        if len(mapping) == 2 and not mapping[0].startswith("<"):
            yield "".join(chr(int(part, 16)) for part in mapping)
    yield from (chr(first) + chr(vowel) for first in range(0x1100, 0x1113) for vowel in range(0x1161, 0x1176))
    yield from (chr(syllable) + chr(last) for syllable in range(0xAC00, 0xD7A4, 28) for last in range(0x11A8, 0x11C3))


@pytest.mark.parametrize("form", FORMS)
def test_normalizers_agree_on_every_pair_that_composes(form):
    pairs = [pair for pair in composition_pairs() if all(agreed()[ord(character)] for character in pair)]
    assert len(pairs) > 11_000
    for pair in pairs:
        for text in (pair, pair + "\u0323", f"{pair[0]}\u0323{pair[1]}"):
            normalized = unicodedata.normalize(form, text)
            assert NORMALIZERS[form](text) == normalized
            assert all(agreed()[ord(character)] for character in normalized)
        assert not inert(form)[ord(pair[1])]


@pytest.mark.parametrize("form", FORMS)
def test_normalizers_put_marks_in_the_same_order(form):
    marks = [chr(code_point) for code_point in AGREED if unicodedata.combining(chr(code_point))]
    one_of_each_class = {unicodedata.combining(mark): mark for mark in marks}.values()
    assert len(marks) > 500
    assert len(one_of_each_class) > 40
    for mark, other in itertools.product(marks, one_of_each_class):
        text = f"q{mark}{other}q{other}{mark}"
        assert NORMALIZERS[form](text) == unicodedata.normalize(form, text)


@pytest.mark.parametrize("form", FORMS)
@given(st.lists(st.sampled_from(AGREED).map(chr) | st.sampled_from(COMPOSING)).map("".join))
def test_normalizers_agree_on_any_text_of_agreed_code_points(form, text):
    text = "".join(character for character in text if agreed()[ord(character)])
    assert NORMALIZERS[form](text) == unicodedata.normalize(form, text)


@pytest.mark.parametrize("form", FORMS)
def test_normalization_leads_to_agreed_code_points_only(form):
    strangers = [
        f"{code_point:X}"
        for code_point in AGREED
        if not all(agreed()[ord(character)] for character in unicodedata.normalize(form, chr(code_point)))
    ]
    assert strangers == []


def test_the_sample_tokenizer_encodes_every_agreed_code_point_alike():
    """With NFKC, a prefix space and real merges, through the encoder; every text by gigatoken alone."""
    tokenizer = load_tokenizer(str(TOKENIZER))
    contexts = ("c", "ac", "caß 1c2", "c's", " c\u0301-s", "a\u0308c")
    texts = pa.array(
        [
            "~".join(context.replace("c", chr(c)) for c in group for context in contexts)
            for group in itertools.batched(AGREED, 20)
        ],
        pa.large_string(),
    )
    fast = GigatokenEncoder(tokenizer, "text")
    assert first_difference(ReferenceEncoder(tokenizer, "text").encode(texts), fast.encode(texts)) is None
    assert "_reference" not in vars(fast)


def documents(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    encoded = [text.encode() for text in texts]
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)])


valid_text = st.text(st.characters(exclude_categories=["Cs"]))
composing = st.text(COMPOSING)


@given(st.lists(valid_text | composing))
def test_non_ascii_finds_every_character(texts):
    data, offsets = documents(texts)
    positions, found = non_ascii(data)
    assert [chr(code_point) for code_point in found] == [c for c in "".join(texts) if c > "\x7f"]
    for position, document in zip(positions, documents_at(offsets, positions), strict=True):
        assert offsets[document] <= position < offsets[document + 1]


@pytest.mark.parametrize("form", FORMS)
@given(st.lists(valid_text | composing | composing.map(lambda text: f"{text}{'a' * 100}{text}")))
def test_normalize_is_that_of_each_whole_document(form, texts):
    data, offsets = documents(texts)
    normal, normal_offsets = normalize(data, offsets, *non_ascii(data), form)
    found = [bytes(normal[a:b]).decode() for a, b in itertools.pairwise(normal_offsets)]
    assert found == [unicodedata.normalize(form, text) for text in texts]


def test_normalize_hands_back_what_does_not_change():
    data, offsets = documents(["Größe", "", "„so“ – ja"])
    assert normalize(data, offsets, *non_ascii(data), "NFKC") == (data, offsets)
