from __future__ import annotations

import functools
import itertools
import json
import random
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from tests.support.corpora import SAMPLES, TOKENIZER
from tests.support.examples import at_most
from tests.support.small_tokenizers import (
    GPT2,
    added_token,
    as_file,
    byte_level,
    split_then_bytes,
    train,
)
from transforms.encoding import encoders
from transforms.encoding.encoders import Encoder, GigatokenEncoder, ReferenceEncoder, make_encoder
from transforms.encoding.splits import COVERING_SPLITS, PROVEN_SPLITS, known_spellings
from transforms.errors import BroetchenError
from transforms.segments.encoded import Encoded, first_difference
from transforms.tokenizer.file import TokenizerFile, load_tokenizer
from transforms.tokenizer.spec import SpecialTokens

MODES: tuple[SpecialTokens, ...] = ("text", "token")
NFKC = {"type": "NFKC"}
MERGES = [
    (b"a", b"b"),
    (b" ", b"a"),
    (b"<", b"|"),
    (b"|", b">"),
    (b"ab", b"ab"),
    (b"\xc3", b"\xa4"),
    (b" ", b"\xc3\xa4"),
]
FIRST_FREE = 256 + len(MERGES)  # the id that `tokenizers` gives to the first added token, whatever its file says


@functools.cache
def sample_tokenizer() -> TokenizerFile:
    return load_tokenizer(str(TOKENIZER), bos_token="<|bos|>", eos_token="<|eos|>")


@functools.cache
def sample_encoders(special_tokens: SpecialTokens) -> tuple[ReferenceEncoder, GigatokenEncoder]:
    return (
        ReferenceEncoder(sample_tokenizer(), special_tokens),
        GigatokenEncoder(sample_tokenizer(), special_tokens),
    )


@functools.cache
def sample_texts() -> pa.LargeStringArray:
    """Every seventh document of the samples, 1.7 MB."""
    tables = [pq.read_table(path, columns=["text"]) for path in sorted(SAMPLES.glob("corpora/*/*.parquet"))]
    texts = pa.concat_tables(tables)["text"].combine_chunks().cast(pa.large_string())
    return texts.take(pa.array(range(0, len(texts), 7)))


def large(texts: Iterable[str]) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def ids_of(encoded: Encoded) -> list[list[int]]:
    assert encoded.ids.dtype == np.uint32
    assert encoded.offsets.dtype == np.int64
    assert encoded.offsets[0] == 0
    assert encoded.offsets[-1] == len(encoded.ids)
    return [encoded.ids[a:b].tolist() for a, b in itertools.pairwise(encoded.offsets)]


def assert_equal(tokenizer: TokenizerFile, special_tokens: SpecialTokens, texts: Sequence[str]) -> None:
    reference, fast = ReferenceEncoder(tokenizer, special_tokens), GigatokenEncoder(tokenizer, special_tokens)
    assert first_difference(reference.encode(large(texts)), fast.encode(large(texts))) is None


def bytes_by_reference(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the texts that the reference encodes from now on."""
    seen: list[int] = []
    encode = ReferenceEncoder.encode

    def watched(self: ReferenceEncoder, texts: pa.LargeStringArray) -> Encoded:
        seen.append(texts.nbytes)
        return encode(self, texts)

    monkeypatch.setattr(ReferenceEncoder, "encode", watched)
    return seen


def by_gigatoken_alone(encoder: GigatokenEncoder) -> bool:
    return not encoder.reference_bytes


# The reference


def test_the_reference_is_tokenizers():
    texts = ["Größe", "", " zwei  Wörter\n", "a…b"]
    plain = tokenizers.Tokenizer.from_file(str(TOKENIZER))
    expected = [encoding.ids for encoding in plain.encode_batch(texts, add_special_tokens=False)]
    assert ids_of(sample_encoders("text")[0].encode(large(texts))) == expected


@pytest.mark.parametrize("encoder", sample_encoders("text"), ids=lambda encoder: encoder.name)
def test_no_documents(encoder):
    assert ids_of(encoder.encode(large([]))) == []
    assert ids_of(encoder.encode(large(["", ""]))) == [[], []]
    assert ids_of(encoder.encode(pa.nulls(0, pa.large_string()))) == []


@pytest.mark.parametrize("encoder", sample_encoders("token"), ids=lambda encoder: encoder.name)
def test_names_of_special_tokens_as_tokens(encoder):
    assert ids_of(encoder.encode(large(["a<|eos|>", "<|bos|>", "<|eos"]))) == [[261, 1], [0], [1430, 93, 70, 411]]


@pytest.mark.parametrize("encoder", sample_encoders("text"), ids=lambda encoder: encoder.name)
def test_names_of_special_tokens_as_text(encoder):
    ids = ids_of(encoder.encode(large(["a<|eos|>", "<|bos|>", "<|eos"])))
    assert [len(some) for some in ids] == [7, 6, 4]
    assert not {0, 1} & set(itertools.chain(*ids))


def test_what_a_file_sets_for_inference_is_ignored():
    """Truncation, padding, and a template that adds BOS and EOS."""
    tokenizer = json.loads(sample_tokenizer().json)
    tokenizer["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    tokenizer["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<|bos|>",
    }  # fmt: skip
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|bos|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|bos|>": {"id": "<|bos|>", "ids": [0], "tokens": ["<|bos|>"]}},
    }
    texts = large(["ein Text mit mehr als neun Tokens darin, wie man sieht", "kurz"])
    expected = ids_of(sample_encoders("text")[0].encode(texts))
    assert len(expected[0]) > 9 > len(expected[1])
    for engine in (ReferenceEncoder, GigatokenEncoder):
        assert ids_of(engine(as_file(tokenizer), "text").encode(texts)) == expected


# The law: the engine never changes the ids


@pytest.mark.parametrize("special_tokens", MODES)
def test_engines_agree_on_the_samples(special_tokens):
    reference, fast = sample_encoders(special_tokens)
    texts = sample_texts()
    found = fast.encode(texts)
    assert first_difference(reference.encode(texts), found) is None
    assert len(found.ids) > 300_000


def test_most_of_the_samples_take_the_fast_path():
    encoder = GigatokenEncoder(sample_tokenizer(), "token")
    encoder.encode(sample_texts())
    assert by_gigatoken_alone(encoder)


ALPHABETS = [
    "abcdefgh ABC 0123456789 .,;:!?-'\"()\n\t\r",
    "äöüÄÖÜßẞ„“‚‘–—…§€°µ²³½ ",
    "\u00a0\u2002\u3000\u0085\u2028\ufeff\u180e\u200b\u200d\u00ad\x00\x1b\x7f\ufffd\ufffe",
    "漢字ひらがなカタカナ한글。、",
    "\u1100\u1161\u11a8\u0301\u0308\u0323\u0327\u0345\u093c\u0915ӄ",
    "ＡＢＣａｂｃ０１２（）＜＞｜ﬁﬀ①Ⅷ㎏㍿",
    "😀🤯🫠🫨👩\u200d🚀🏳️\u200d🌈🇩🇪\U0001d400\U0001d15e\U00018dc3\U0001e036\U00010793\U00011935\U00011930\ua7ce\U0010ffff",
    "עברית العربية हिन्दी ไทย",
]
WORDS = [
    "<|eos|>",
    "<|bos|>",
    "＜｜eos｜＞",
    "＜|eos|>",
    "<|",
    "eos",
    "|>",
    "'s",
    "'LL",
    "don't",
    "  ",
    "\r\n",
    "12345",
    "\U00018dc3-s",
]
mixed_text = st.lists(
    st.sampled_from(WORDS) | st.sampled_from(ALPHABETS).flatmap(lambda alphabet: st.text(alphabet, max_size=8)),
    max_size=12,
).map("".join)


@pytest.mark.parametrize("special_tokens", MODES)
@at_most(150)
@given(st.lists(mixed_text | st.text(st.characters(exclude_categories=["Cs"])), max_size=8))
def test_engines_agree_on_mixed_alphabets(special_tokens, texts):
    reference, fast = sample_encoders(special_tokens)
    assert first_difference(reference.encode(large(texts)), fast.encode(large(texts))) is None


@functools.cache
def trained(scheme: str) -> TokenizerFile:
    pre_tokenizer = split_then_bytes(*PROVEN_SPLITS[scheme])
    return as_file(train(sample_texts().slice(0, 300).to_pylist(), pre_tokenizer) | {"normalizer": {"type": "NFC"}})


@functools.cache
def trained_by(patterns: tuple[str, ...], behavior: str, invert: bool) -> TokenizerFile:
    pre_tokenizer = split_then_bytes(*patterns, behavior=behavior, invert=invert)
    return as_file(train(sample_texts().slice(0, 300).to_pylist(), pre_tokenizer))


@pytest.mark.parametrize(("behavior", "invert"), [("Isolated", False), ("Removed", True)])
@pytest.mark.parametrize("patterns", known_spellings())
def test_engines_agree_in_every_spelling(patterns, behavior, invert):
    if invert and known_spellings()[patterns][0] not in COVERING_SPLITS:
        return
    rng = random.Random(repr(patterns))
    pieces = [*WORDS, *itertools.chain(*ALPHABETS), *"0123456789", *NUMBERS]
    texts = ["".join(rng.choices(pieces, k=rng.randrange(60))) for _ in range(800)]
    assert_equal(trained_by(patterns, behavior, invert), "text", [*texts, *sample_texts().slice(300, 60).to_pylist()])


NUMBERS = ["1", "22", "333", "4444", "²", "½", "٣", "๕", "Ⅷ", "①", "０", "1²", "²1", "٣4"]


@pytest.mark.parametrize(
    "merges", [[], [(b"1", b"2"), (b" ", b"1"), (b" ", b"12"), (b"2", b"2")]], ids=["none", "some"]
)
@pytest.mark.parametrize("normalizer", [None, {"type": "NFC"}])
def test_engines_agree_on_single_digits(merges, normalizer):
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, GPT2]}
    merges = [(b" ", b" "), (b"a", b"b"), (b" ", b"a"), (b"\xc2", b"\xb2"), (b"\n", b" "), *merges]
    tokenizer = as_file(byte_level(merges, pre_tokenizer=digits, normalizer=normalizer))
    rng = random.Random(1)
    pieces = [*NUMBERS, " ", "  ", "\n", "a", "ab", "'s", ".", "\u00a0", "é", "e\u0301", "\ua7ce"]
    assert_equal(tokenizer, "text", ["".join(rng.choices(pieces, k=rng.randrange(20))) for _ in range(3000)])


@pytest.mark.parametrize("scheme", PROVEN_SPLITS)
def test_engines_agree_in_every_scheme(scheme):
    rng = random.Random(scheme)
    pieces = [*WORDS, *itertools.chain(*ALPHABETS)]
    texts = ["".join(rng.choices(pieces, k=rng.randrange(60))) for _ in range(1500)]
    assert_equal(trained(scheme), "text", [*texts, *sample_texts().slice(300, 100).to_pylist()])


HARD_DOCUMENTS = {
    "a long run of a letter": "a" * 300_000,
    "a long run of spaces": " " * 300_000,
    "a long run of marks": "\u0301" * 20_000,
    "a long run of marks out of order": "\u0301\u0323" * 10_000,
    "a long run of what NFKC changes": "…" * 100_000,
    "what NFKC changes, with gaps": "…abc" * 50_000,
    "a long run of Han": "漢" * 20_000,
    "control characters": "".join(map(chr, range(0x20))) + "\x7f" + "".join(map(chr, range(0x80, 0xA0))),
    "NUL alone": "\0",
    "NULs": "a\0b\0\0",
    "CR alone": "a\rb\r\r c\r",
    "line ends": "a\r\nb\n\r\n\n\u2028\u2029\x0b\x0cc",
    "byte order marks": "\ufeffa \ufeff\ufeffb",
    "next line": "a\u0085b \u0085 c",
    "a space that is none": "a\u180eb \u180e c",
    "spaces at both ends": "  a  ",
    "NFKC makes a space first": "\u00a0a",
    "mark first": "\u0301a",
    "an unknown code point": "a\U00018dc3-s",
    "names of special tokens": "<|eos|><|bos|> <|eos|>",
    "NFKC makes the name of a special token": "a＜｜eos｜＞b",
    "half a special token": "<|eos",
}


@pytest.mark.parametrize("special_tokens", MODES)
@pytest.mark.parametrize("text", HARD_DOCUMENTS.values(), ids=HARD_DOCUMENTS)
def test_engines_agree_on_hard_documents(special_tokens, text):
    reference, fast = sample_encoders(special_tokens)
    texts = large([text, "", "b", text, "…", ""])
    assert first_difference(reference.encode(texts), fast.encode(texts)) is None


def test_a_document_larger_than_a_call(monkeypatch):
    monkeypatch.setattr(encoders, "_CALL_BYTES", 1000)
    texts = sample_texts().slice(0, 60)
    text = "".join(texts.to_pylist())
    reference, fast = sample_encoders("text")
    texts = large(["", text, "", "a", "\ua7ce", *texts.to_pylist(), text, ""])
    assert first_difference(reference.encode(texts), fast.encode(texts)) is None


def test_a_slice_of_an_array():
    texts = large(["weg", "äö…", "\U00018dc3", "<|eos|>", "", "ﬁ weg"])
    for encoder in sample_encoders("token"):
        assert ids_of(encoder.encode(texts.slice(1, 4))) == ids_of(encoder.encode(large(texts.slice(1, 4).to_pylist())))


@pytest.mark.slow
def test_five_megabytes_in_one_document():
    text = "".join(sample_texts().to_pylist()) * 4
    assert len(text) > 5_000_000
    reference, fast = sample_encoders("text")
    assert first_difference(reference.encode(large([text])), fast.encode(large([text]))) is None


# Added tokens, which only the reference matches

ADDED = {
    "plain": added_token(FIRST_FREE, "<|x|>"),
    "not special": added_token(FIRST_FREE, "<|x|>", special=False),
    "normalized": added_token(FIRST_FREE, "ﬁx ä", special=False, normalized=True),
    "normalized, written decomposed": added_token(FIRST_FREE, "fix a\u0308", special=False, normalized=True),
    "not normalized, written decomposed": added_token(FIRST_FREE, "fix a\u0308", special=False),
    "special and normalized": added_token(FIRST_FREE, "ﬁx ä", normalized=True),
    "takes spaces on the left": added_token(FIRST_FREE, "<|x|>", lstrip=True, special=False),
    "takes spaces on the right": added_token(FIRST_FREE, "<|x|>", rstrip=True, special=False),
    "whole words": added_token(FIRST_FREE, "ab", single_word=True, special=False),
    "whole words, normalized": added_token(FIRST_FREE, "ＡＢ", single_word=True, special=False, normalized=True),
    "a space": added_token(FIRST_FREE, "  ", special=False, normalized=True),
    "signs": added_token(FIRST_FREE, 'a.*|\\b[\n"😀', special=False),
}


@pytest.mark.parametrize("normalizer", [None, NFKC, {"type": "NFC"}], ids=["none", "NFKC", "NFC"])
@pytest.mark.parametrize("special_tokens", MODES)
@pytest.mark.parametrize("token", ADDED.values(), ids=ADDED)
def test_added_tokens(token, special_tokens, normalizer):
    tokenizer = as_file(
        byte_level(MERGES, normalizer=normalizer, added_tokens=[token, added_token(FIRST_FREE + 1, "|y|")])
    )
    texts = [
        "a <|x|> b", "<|x|>", " \n<|x|>\t b", "<|x", "fix ä", "ﬁx ä", "fix a\u0308", "ﬁx a\u0308ﬁx a\u0308\u0323", "ab",
        "abab ab", "xab", "ＡＢ", "AB xAB", "a  b", "a \u00a0b", "a.*|\\b[\n\"😀", "abb", "<|x|y|>", "|y|x|>", "", "ä",
        "<|x|>\ua7ce", "＜｜ｘ｜＞",
    ]  # fmt: skip
    reference = ReferenceEncoder(tokenizer, special_tokens).encode(large(texts))
    assert first_difference(reference, GigatokenEncoder(tokenizer, special_tokens).encode(large(texts))) is None
    for text in texts:
        assert_equal(tokenizer, special_tokens, [text])
    if special_tokens == "token":
        assert FIRST_FREE in reference.ids


def test_overlapping_added_tokens_across_documents():
    """A name that begins in one document and ends in the next is none, and hides none."""
    added = [added_token(FIRST_FREE, "ab", special=False), added_token(FIRST_FREE + 1, "bc", special=False)]
    assert_equal(as_file(byte_level(MERGES, added_tokens=added)), "text", ["a", "bc", "xa", "b", "c"])


def test_only_added_tokens_with_flags_need_the_reference():
    for flag in ("lstrip", "rstrip", "single_word"):
        added = [added_token(FIRST_FREE, "<|x|>"), added_token(FIRST_FREE + 1, "<|y|>", **{flag: True})]
        encoder = GigatokenEncoder(as_file(byte_level(MERGES, added_tokens=added[:1])), "token")
        encoder.encode(large(["a <|b|>", "x|>", "a <|x|>"]))
        assert by_gigatoken_alone(encoder)
        encoder = GigatokenEncoder(as_file(byte_level(MERGES, added_tokens=added)), "token")
        encoder.encode(large(["a <|b|>", "x|>"]))
        assert by_gigatoken_alone(encoder)
        encoder.encode(large(["a <|x|>"]))
        assert not by_gigatoken_alone(encoder)


def test_where_tokenizers_panics_it_is_an_error_of_ours():
    """One added token takes the white space that is another (0.23)."""
    added = [added_token(FIRST_FREE, "x", rstrip=True), added_token(FIRST_FREE + 1, " ", lstrip=True)]
    encoder = ReferenceEncoder(as_file(byte_level(MERGES, added_tokens=added)), "token")
    with pytest.raises(BroetchenError, match="tokenizers cannot encode some of the text"):
        encoder.encode(large(["x  y  x   "]))


@pytest.mark.parametrize("special_tokens", MODES)
@pytest.mark.parametrize("longest", [2, 3, 24])
@pytest.mark.parametrize("others", [[], ["\n ", "<|x|>"], ["  a"]])
@pytest.mark.parametrize("shortest", [1, 2, 3])
def test_runs_of_spaces_as_tokens(special_tokens, shortest, longest, others):
    """As GPT-NeoX and Gemma have them; beside others with a space they are found in another way."""
    names = [" " * length for length in range(shortest, longest + 1)] + others
    added = [added_token(FIRST_FREE + number, name, special=number % 2 > 0) for number, name in enumerate(names)]
    rng = random.Random(longest)
    texts = ["".join(rng.choices([" ", "  ", "a", "\n", "ab", "<|x|>", "é", "\ua7ce"], k=30)) for _ in range(300)]
    texts += [" " * length for length in range(60)]
    assert_equal(as_file(byte_level(MERGES, added_tokens=added)), special_tokens, texts)


@pytest.mark.parametrize(("first", "second"), [("ab", "bc"), ("abc", "b"), ("ab", "abc"), ("b", "abcd")])
@pytest.mark.parametrize("special", [True, False])
def test_special_tokens_that_are_text_hide_others(first, second, special):
    added = [added_token(FIRST_FREE, first), added_token(FIRST_FREE + 1, second, special=special)]
    texts = ["".join(parts) for parts in itertools.product("abcd", repeat=5)]
    for mode in MODES:
        assert_equal(as_file(byte_level(MERGES, added_tokens=added)), mode, texts)


def test_a_character_that_engines_do_not_know_alike_costs_its_surroundings(monkeypatch):
    """One in a document of 1.7 MB: the reference gets some of it, and the ids are the same."""
    text = "".join(sample_texts().to_pylist())
    middle = len(text) // 2
    text = text[:middle] + "\U00018dc3-s" + text[middle:]
    reference, fast = ReferenceEncoder(sample_tokenizer(), "text"), GigatokenEncoder(sample_tokenizer(), "text")
    seen = bytes_by_reference(monkeypatch)
    found = fast.encode(large([text]))
    assert 0 < sum(seen) < 2000
    assert first_difference(reference.encode(large([text])), found) is None


@pytest.mark.parametrize("word", ["Кириллица ", "ελληνικά ", "עברית ", "한국어 ", "für "])
def test_documents_of_any_script_are_cut(monkeypatch, word):
    text = word * 2000 + "\U00018dc3-s" + word * 2000
    reference, fast = ReferenceEncoder(sample_tokenizer(), "text"), GigatokenEncoder(sample_tokenizer(), "text")
    expected = reference.encode(large([text]))
    seen = bytes_by_reference(monkeypatch)
    assert first_difference(expected, fast.encode(large([text]))) is None
    assert 0 < sum(seen) < 200


@pytest.mark.parametrize("script", ["漢字かな", "ไทย", "a" * 30, "é…"])
def test_where_a_document_cannot_be_cut_all_of_it_goes_to_the_reference(script):
    texts = [script * 500 + "\U00018dc3-s" + script * 500, "\U00018dc3", "a b\U00018dc3c d"]
    assert_equal(sample_tokenizer(), "text", texts)


# Models


def renumbered(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer with the ids of its merges in another order than the merges."""
    vocabulary = tokenizer["model"]["vocab"]
    merged = [token for token, token_id in vocabulary.items() if token_id >= 256]
    vocabulary.update(zip(merged, reversed([vocabulary[token] for token in merged]), strict=True))
    return tokenizer


def test_merges_whose_ids_do_not_ascend():
    texts = sample_texts().slice(0, 40).to_pylist()
    tokenizer = as_file(renumbered(train(texts, GPT2)))
    assert_equal(tokenizer, "text", texts)


def test_tokens_that_merges_do_not_reach():
    """Words in the vocabulary that no merge makes, an id that nothing has, and names outside the byte alphabet."""
    for ignore_merges in (False, True):
        tokenizer = byte_level(MERGES)
        tokenizer["model"]["vocab"] |= {"xyz": 400, "漢": 401, "ä": 402, "<|eos|>": 403, "Ġhello": 404}
        tokenizer["model"]["ignore_merges"] = ignore_merges
        texts = ["xyz", "漢", "ä", "Ã¤", "<|eos|>", " hello", "hello", "Ġhello", "ab abab"]
        assert_equal(as_file(tokenizer), "text", texts)
    assert 400 in GigatokenEncoder(as_file(tokenizer), "text").encode(large(texts)).ids


def test_make_encoder(caplog):
    assert make_encoder(sample_tokenizer(), "tokenizers", "text").name == "tokenizers"
    assert make_encoder(sample_tokenizer(), "gigatoken", "text").name == "gigatoken"
    assert make_encoder(sample_tokenizer(), "auto", "text").name == "gigatoken"
    assert not caplog.records


# Memory and threads


def distinct_words(rng: np.random.Generator, size: int) -> pa.LargeStringArray:
    words = rng.integers(ord("a"), ord("z") + 1, (size // 9, 9), dtype=np.uint8)
    words[:, 0] = ord(" ")
    return large(words[i : i + 500].tobytes().decode() for i in range(0, len(words), 500))


def test_memory_is_bounded_where_no_word_comes_twice():
    """Without a bound it would grow by some 400 MB."""
    encoder = GigatokenEncoder(as_file(byte_level(MERGES)), "text")
    rng = np.random.default_rng(0)
    encoder.encode(distinct_words(rng, 1_000_000))
    process = psutil.Process()
    before = process.memory_info().rss
    most = 0
    for _ in range(40):
        encoder.encode(distinct_words(rng, 1_000_000))
        most = max(most, process.memory_info().rss - before)
    assert most < 200_000_000


def test_an_engine_that_has_grown_is_made_anew(monkeypatch):
    monkeypatch.setattr(encoders, "CACHE_BOUND_BYTES", -1)
    encoder = GigatokenEncoder(as_file(byte_level(MERGES)), "text")
    for _ in range(3):
        assert ids_of(encoder.encode(large(["ab ä"]))) == [[256, 262]]
        assert encoder._engine is None


def test_an_encoder_for_each_thread():
    texts = sample_texts()
    expected = sample_encoders("text")[1].encode(texts)
    differences: list[str | None] = []

    def work() -> None:
        encoder = GigatokenEncoder(sample_tokenizer(), "text")
        differences.extend(first_difference(expected, encoder.encode(texts)) for _ in range(3))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert differences == [None] * 9


def test_both_are_encoders():
    chosen: list[Encoder] = list(sample_encoders("text"))
    assert [encoder.name for encoder in chosen] == ["tokenizers", "gigatoken"]
