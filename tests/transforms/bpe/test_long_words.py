"""Words that are too long to train on are left out, and nothing else changes."""

from __future__ import annotations

import random
import string
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.corpora import SAMPLES, documents_of
from tests.support.examples import at_most
from transforms.bpe import long_words, train
from transforms.bpe.long_words import WithoutLongWords
from transforms.bpe.styles import STYLES, special_tokens

PARTS = ["a", "b ", " ", "\n", "12", "ü", "日本", ". ", "-", "\u00a0", "ﷺ", "'s", "\r\n", "\t", "。\n", "x" * 7]


def texts_of(batches: WithoutLongWords) -> list[str]:
    return [text for batch in batches for text in batch.to_pylist()]


def arrays(*texts: Sequence[str]) -> list[pa.LargeStringArray]:
    return [pa.array(some, pa.large_string()) for some in texts]


def words_of(style: str, texts: Sequence[str]) -> Counter[str]:
    """How often each word is in documents, as the pre-tokenizer finds them."""
    form = STYLES[style]
    pre_tokenizer = form.untrained().pre_tokenizer
    return Counter(word for text in texts for word, _ in pre_tokenizer.pre_tokenize_str(form.given_back(text)))


@at_most(100)
@given(st.lists(st.lists(st.sampled_from(PARTS), max_size=40).map("".join), max_size=5), st.integers(1, 20))
@pytest.mark.parametrize("style", ["gpt-4", "nanochat"])
def test_all_words_stay_but_those_that_are_too_long(style, texts, most):
    without = WithoutLongWords(STYLES[style], arrays(texts, []), most)
    kept = words_of(style, texts_of(without))
    expected = words_of(style, texts)
    long = {word: times for word, times in expected.items() if len(word) > most}
    assert kept == Counter({word: times for word, times in expected.items() if word not in long})
    assert without.words == sum(long.values())
    assert without.bytes == sum(len(word) * times for word, times in long.items())


@at_most(100)
@given(st.lists(st.lists(st.sampled_from(PARTS), max_size=40).map("".join), max_size=5), st.integers(12, 40))
def test_after_a_word_that_is_left_out_a_space_may_be_put(texts, most):
    """GPT-NeoX's style puts one before each document, and what follows such a word becomes one."""
    without = WithoutLongWords(STYLES["gpt-neox"], arrays(texts), most)
    kept, expected = words_of("gpt-neox", texts_of(without)), words_of("gpt-neox", texts)
    long = sum(times for word, times in expected.items() if len(word) > most)
    assert without.words == long
    assert all(len(word) <= most + 1 for word in kept)
    if not long:
        assert kept == expected


def test_documents_without_long_words_are_passed_on_as_they_are():
    documents = documents_of((SAMPLES / "corpora").glob("*/*.parquet"))
    batches = arrays(documents[:500], documents[500:])
    for style in STYLES.values():
        without = WithoutLongWords(style, batches)
        assert all(found is given for found, given in zip(without, batches, strict=True))
        assert (without.words, without.bytes) == (0, 0)


def test_the_corpus_may_come_in_slices():
    (batch,) = arrays(["skipped", "x" * 9 + " ab", "cd"])
    assert texts_of(WithoutLongWords(STYLES["gpt-4"], [batch.slice(1)], 5)) == [" ab", "cd"]


def test_a_document_of_one_long_word_is_still_one():
    without = WithoutLongWords(STYLES["gpt-4"], arrays(["x" * 6, "ab"]), 5)
    assert texts_of(without) == ["", "ab"]
    assert (without.words, without.bytes) == (1, 6)


@pytest.mark.parametrize("style", sorted(STYLES))
@pytest.mark.parametrize("name", ["tokenizers", "gigatoken"])
def test_a_word_of_a_million_letters_takes_seconds(style, name):
    """Without the limit one of 300,000 took 26 s, and this one eleven times as long."""
    if name == "gigatoken" and style != "gpt-neox":
        pytest.skip("gigatoken trains no other style")
    chance = random.Random(7)
    word = "".join(chance.choices(string.ascii_lowercase, k=1_000_000))
    documents = [f"{text} and more" for text in documents_of((SAMPLES / "corpora" / "fineweb_english").glob("*"))[:40]]
    started = time.process_time()
    without = WithoutLongWords(STYLES[style], arrays([*documents[:20], f"before {word} after", *documents[20:]]))
    trained = train.TRAINERS[name](STYLES[style], without, 2000, special_tokens())
    assert time.process_time() - started < 20
    assert (without.words, without.bytes) == (1, 1_000_001)
    plain = arrays([*documents[:20], "before", " after", *documents[20:]])
    assert trained.to_str() == train.train_by_tokenizers(STYLES[style], plain, 2000, special_tokens()).to_str()


def test_no_character_grows_more_in_nfkc():
    growth = (
        len(unicodedata.normalize("NFKC", character).encode()) / len(character.encode())
        for character in map(chr, range(sys.maxunicode + 1))
        if not 0xD800 <= ord(character) < 0xE000
    )
    assert max(growth) <= long_words._NFKC_GROWTH
