"""The table of agreed code points is proven here, on every code point that it lists.

Which splits a regular expression makes depends on the classes of code points, so each one is encoded in contexts that
tell all classes apart, by tokenizers whose merges join it to whatever may stand beside it: where one engine splits and
the other does not, the ids differ.
"""

from __future__ import annotations

import functools
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
from tests.support.small_tokenizers import GPT2, POSSESSIVE, as_file, byte_level, split_then_bytes
from transforms.encoding.encoders import GigatokenEncoder, ReferenceEncoder
from transforms.encoding.splits import PROVEN_SPLITS, known_spellings
from transforms.segments import code_points
from transforms.segments.code_points import agreed, documents_at, inert, non_ascii, normalize
from transforms.segments.digits import is_number
from transforms.segments.encoded import first_difference
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


def unequal(tokenizer_json: str, candidates: Iterable[int], *, by_encoder: bool = False) -> list[str]:
    """The code points, in hexadecimal, that the engines themselves encode differently, or our encoder around them."""
    reference = tokenizers.Tokenizer.from_str(tokenizer_json)
    if by_encoder:
        encoder = GigatokenEncoder(as_file(json.loads(tokenizer_json)), "text")

        def encode(texts: list[str]) -> list[list[int]]:
            encoded = encoder.encode(pa.array(texts, pa.large_string()))
            return [part.tolist() for part in np.split(encoded.ids, encoded.offsets[1:-1])]
    else:
        engine = gigatoken.Tokenizer.from_json(tokenizer_json)

        def encode(texts: list[str]) -> list[list[int]]:
            return engine.encode_batch_list([text.encode() for text in texts], parallel=False)

    def differing(texts: list[str]) -> list[int]:
        if not texts:
            return []
        expected = [encoding.ids for encoding in reference.encode_batch_fast(texts, add_special_tokens=False)]
        found = encode(texts)
        return [i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b]

    groups = list(itertools.batched(candidates, 50))
    suspects = differing(["\n~x".join(map(in_contexts, group)) for group in groups])
    single = [code_point for i in suspects for code_point in groups[i]]
    return [f"{single[i]:X}" for i in differing([in_contexts(code_point) for code_point in single])]


def test_the_table():
    table = agreed.__wrapped__()  # made again, and not the one that importing this module has made
    assert table.shape == (0x110000,)
    assert table[:0x180].all()
    assert np.count_nonzero(table) == len(AGREED) == 65_276
    # In and between ranges, and where one is a single code point
    assert [c for c in range(0x378, 0x390) if not table[c]] == [0x378, 0x379, *range(0x380, 0x384), 0x38B, 0x38D]
    assert [c for c in range(0x1FAF0, 0x110000) if table[c]] == list(range(0x1FAF0, 0x1FAF7))
    assert all(
        table[ord(character)] for character in "äöüßÄÖÜẞ„“”–—…€₿™②ﬁＡ한글漢字ひらがな😀🧑‍🚀\u0301\ufeff\u180e\u0085\0"
    )
    # Newer than some library's tables, not assigned, not characters, or not to be had in UTF-8
    assert not any(table[[0x18DC3, 0x1E036, 0x10793, 0xA7CB, 0x1C89, 0x0378, 0xFFFE, 0xFDD0, 0xD800, 0x10FFFF]])
    with pytest.raises(ValueError, match="read-only"):
        table[0] = False


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["gpt2", "o200k", "deepseek3"])
def test_engines_split_alike_on_every_agreed_code_point(scheme):
    """These three tell apart all the classes that any scheme does: letters by case, marks, numbers, symbols, spaces."""
    assert unequal(probe(*(PROVEN_SPLITS[scheme] if scheme != "gpt2" else ())), AGREED) == []


@pytest.mark.slow
@pytest.mark.parametrize("patterns", known_spellings())
def test_engines_split_alike_in_every_spelling(patterns):
    """On all of Latin, Greek and Cyrillic, punctuation and symbols, all numbers, and on a part of the rest."""
    numbers = np.flatnonzero(is_number()).tolist()
    chosen = [*range(0x530), *range(0x1E00, 0x2400), *numbers, *AGREED[::37]]
    points = [code_point for code_point in chosen if agreed()[code_point]]
    assert unequal(probe(*patterns), points, by_encoder=True) == []


@pytest.mark.slow
def test_single_digits_are_split_alike_on_every_number():
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, GPT2]}
    tokenizer = json.loads(probe()) | {"pre_tokenizer": digits}
    points = [*range(0x530), *np.flatnonzero(is_number()).tolist(), *AGREED[::37]]
    assert unequal(json.dumps(tokenizer), [point for point in points if agreed()[point]], by_encoder=True) == []


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


@functools.cache
def composition_pairs() -> tuple[str, ...]:
    return tuple(_composition_pairs())


def _composition_pairs() -> Iterator[str]:
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
def test_inert_is_what_no_text_before_it_changes(form):
    """Inert by mistake would be normalized wrongly, and not inert by mistake slowly."""
    first_halves: dict[str, set[str]] = {}
    for pair in composition_pairs():
        first_halves.setdefault(pair[1], set()).add(pair[0])
    expected = [
        code_point
        for code_point in AGREED
        for character in [chr(code_point)]
        if all(
            unicodedata.normalize(form, before + character) == unicodedata.normalize(form, before) + character
            for before in ("", "\u0345", *first_halves.get(character, ()))  # U+0345 stays behind all other marks
        )
    ]
    # Two signs of Tibetan are second halves only of what is never composed again.
    table = inert.__wrapped__(form)  # made again, and not the one that an earlier test has made
    assert np.flatnonzero(table).tolist() == [c for c in expected if c not in (0xFB5, 0xFB7)]
    assert {0xFB5, 0xFB7} < set(expected)
    with pytest.raises(ValueError, match="read-only"):
        table[0] = False


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
    """It has NFKC, a prefix space and real merges; through the encoder, gigatoken alone encodes every text."""
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
    assert not fast.reference_bytes


def marks_out_of_order() -> list[str]:
    """Marks of any two combining classes, the higher first; where there is one, such that compose with nothing.

    Most of these texts change only because marks are put in order: Arabic is written with a shadda and Hebrew with a
    dagesh on either side of the vowel.
    """
    second_halves = {pair[1] for pair in composition_pairs()}
    marks = [character for character in map(chr, AGREED) if unicodedata.combining(character)]
    marks.sort(key=lambda mark: mark not in second_halves)  # the last of a class is taken
    of_each_class = {unicodedata.combining(mark): mark for mark in marks}
    assert len(of_each_class) == 53
    in_order = [of_each_class[combining_class] for combining_class in sorted(of_each_class)]
    return [f"q{higher}{lower}" for lower, higher in itertools.combinations(in_order, 2)]


REORDERED = {
    "\u0628\u0651\u064e": "\u0628\u064e\u0651",  # beh with shadda and fatha
    "\u05d1\u0316\u05b0": "\u05d1\u05b0\u0316",  # bet with a mark below and sheva
    "\u05e9\u05bc\u05b8": "\u05e9\u05b8\u05bc",  # shin with dagesh and qamats
    "\u0e01\u0e48\u0e38": "\u0e01\u0e38\u0e48",  # Thai ko kai with a tone and a vowel below
    "q\u0305\u0316\u0334": "q\u0334\u0316\u0305",  # three classes
    "q\u0305\u030d": "q\u0305\u030d",  # one class: the order is told apart
}


@pytest.mark.parametrize("form", FORMS)
def test_marks_are_put_in_order(form):
    """Not only those that compose with what stands before."""
    texts = [*REORDERED, *(f"a{text}ä…" for text in REORDERED), *marks_out_of_order()]
    data, offsets = documents(texts)
    normal, normal_offsets = normalize(data, offsets, *non_ascii(data), form)
    expected = [unicodedata.normalize(form, text) for text in texts]
    assert expected[: len(REORDERED)] == list(REORDERED.values())
    assert bytes(normal).decode() == "".join(expected)
    assert normal_offsets.tolist() == documents(expected)[1].tolist()


@pytest.mark.parametrize("form", FORMS)
def test_ids_of_marks_that_are_out_of_order(form):
    """The tokenizer has bytes alone; its ids are the bytes of the normalized text."""
    texts = [*REORDERED, *marks_out_of_order()]
    tokenizer = as_file(byte_level(normalizer={"type": form}))
    fast = GigatokenEncoder(tokenizer, "text")
    found = fast.encode(pa.array(texts, pa.large_string()))
    assert not fast.reference_bytes
    own = tokenizers.Tokenizer.from_str(tokenizer.json).encode_batch(texts, add_special_tokens=False)
    ids = [list(unicodedata.normalize(form, text).encode()) for text in texts]
    assert [encoding.ids for encoding in own] == ids
    assert [part.tolist() for part in np.split(found.ids, found.offsets[1:-1])] == ids


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


def test_the_first_and_last_character_of_each_length():
    """On both sides of where UTF-8 takes a byte more, and where a lead byte has another bit."""
    code_points = [
        *(0x80, 0xBF, 0xC0, 0x7FF),
        *(0x800, 0xFFF, 0x1000, 0x7FFF, 0x8000, 0xD7FF, 0xE000, 0xFFFF),
        *(0x10000, 0x3FFFF, 0x40000, 0x7FFFF, 0x80000, 0xFFFFF, 0x100000, 0x10FFFF),
    ]
    data, _ = documents(["\x7f", *map(chr, code_points), "\0"])
    positions, found = non_ascii(data)
    assert found.dtype == np.uint32
    assert found.tolist() == code_points
    assert positions.dtype == np.int64
    assert positions.tolist() == np.cumsum([1, *[2] * 4, *[3] * 8, *[4] * 8])[:-1].tolist()


def test_documents_at_their_edges():
    offsets = np.array([0, 3, 3, 5, 6])
    assert documents_at(offsets, np.array([0, 2, 3, 4, 5])).tolist() == [0, 0, 2, 2, 3]


FAR = "b" * 100
EDGES = {
    "at the start": (["…a", "b"], ["...a", "b"]),
    "at the end": (["a…", "", "b"], ["a...", "", "b"]),
    "alone": (["…", "…"], ["...", "..."]),
    "shorter": (["ﬁ", "ｘy", "a"], ["fi", "xy", "a"]),
    "a mark first in a document": (["a", "\u0308a", "a\u0308"], ["a", "\u0308a", "ä"]),
    "not across documents": (["a", "\u0308", "\u1100", "\u1161"], ["a", "\u0308", "\u1100", "\u1161"]),
    "two bytes before": (["ß\u0308ø\u0308"], ["ß\u0308ø\u0308"]),
    "three bytes before": (["xあ\u3099", "\u0915\u093c"], ["xあ\u3099", "\u0915\u093c"]),
    "four bytes before": (["😀\u0308", "x😁\u0308"], ["😀\u0308", "x😁\u0308"]),
    "three bytes that compose": (["か\u3099か", "\u0928\u093c"], ["がか", "\u0929"]),
    "three bytes of the first lead": (["a\u0958b"], ["a\u0915\u093cb"]),
    "four bytes": (["\U0001d400", "a\U0001d7ffb"], ["A", "a9b"]),
    "far from each other": ([f"…{FAR}a\u0308", f"{FAR}…"], [f"...{FAR}ä", f"{FAR}..."]),
    "near each other, far from the first": ([f"…{FAR}a\u0323\u0308"], [f"...{FAR}ạ\u0308"]),
    "near each other in the second document": (["…", f"a\u0323\u0308{FAR}"], ["...", f"ạ\u0308{FAR}"]),
    "a document between": (["x…", FAR, "…y"], ["x...", FAR, "...y"]),
}


@pytest.mark.parametrize(("texts", "expected"), EDGES.values(), ids=EDGES)
def test_normalize_at_the_edges(texts, expected):
    data, offsets = documents(texts)
    normal, normal_offsets = normalize(data, offsets, *non_ascii(data), "NFKC")
    assert bytes(normal).decode() == "".join(expected)
    assert normal.dtype == np.uint8
    assert normal_offsets.dtype == np.int64
    assert normal_offsets.tolist() == documents(expected)[1].tolist()


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
