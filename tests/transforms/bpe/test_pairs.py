"""Bounds on the pairs of a corpus by its counts of bytes, and that a trainer that counts wrongly is found out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.corpora import SAMPLES, documents_of
from tests.support.examples import at_most
from transforms.bpe.pairs import Counts, PairCounts, first_merge, overflow_warning
from transforms.bpe.styles import STYLES, special_tokens
from transforms.bpe.train import train_by_tokenizers
from transforms.encoding.splits import byte_characters
from transforms.errors import BroetchenError

PARTS = [
    "a",
    "be",
    "'re",
    "'S",
    " ",
    "\n",
    "12",
    "ü",
    "о",
    "日本",
    ".",
    "-",
    "\u00a0",
    "ﬁ",
    "e\u0301",
    "\r\n",
    "…",
    "<|",
]
BYTE_OF = {character: byte for byte, character in enumerate(byte_characters())}


def array(texts: Sequence[str]) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def counted(style: str, texts: Sequence[str]) -> PairCounts:
    counts = PairCounts(STYLES[style])
    counts.add(array(["not counted", *texts]).slice(1))
    return counts


def in_words(style: str, texts: Sequence[str]) -> Counts:
    """How often two bytes follow each other in the words that the pre-tokenizer makes of documents: [256, 256]."""
    form = STYLES[style]
    pre_tokenizer = form.untrained().pre_tokenizer
    found = np.zeros((256, 256), np.int64)
    for text in texts:
        for word, _ in pre_tokenizer.pre_tokenize_str(form.given_back(text)):
            for first, second in itertools.pairwise(BYTE_OF[character] for character in word):
                found[first, second] += 1
    return found


def hold(style: str, texts: Sequence[str]) -> tuple[PairCounts, Counts]:
    """Checks that the true numbers lie within the bounds."""
    counts, true = counted(style, texts), in_words(style, texts)
    assert (counts.at_least <= true).all()
    assert (true <= counts.at_most).all()
    return counts, true


@at_most(60)
@given(st.lists(st.lists(st.sampled_from(PARTS), max_size=30).map("".join), max_size=4))
@pytest.mark.parametrize("style", sorted(STYLES))
def test_true_numbers_lie_within_the_bounds(style, texts):
    hold(style, texts)


@pytest.mark.parametrize("style", sorted(STYLES))
@pytest.mark.parametrize("corpus", ["fineweb_edu_english", "fineweb2_german"])
def test_on_real_text_the_bounds_are_close_to_each_other(style, corpus):
    texts = documents_of(sorted((SAMPLES / "corpora" / corpus).glob("*.parquet")))[:30]
    counts, true = hold(style, texts)
    pair, times = bytes(divmod(int(true.argmax()), 256)), int(true.max())
    assert counts.most_frequent()[0] == pair
    assert 0.9 * times < counts.most_frequent()[1] <= times
    tokenizer = train_by_tokenizers(STYLES[style], [array(texts)], 400, special_tokens())
    assert first_merge(tokenizer) == pair
    counts.check_merges(tokenizer)


def test_a_trainer_that_has_not_merged_the_most_frequent_pair_is_found():
    counts = counted("gpt-4", ["ab ab ab ab cd"])
    wrong = train_by_tokenizers(STYLES["gpt-4"], [array(["cd cd"])], 268, special_tokens())
    with pytest.raises(
        BroetchenError, match=r"the first merge is of 'cd', which occurs at most 1 times, though 'ab' oc"
    ):
        counts.check_merges(wrong)
    counts.check_merges(train_by_tokenizers(STYLES["gpt-4"], [array(["ab ab"])], 268, special_tokens()))
    # Without a merge there is nothing to say.
    counts.check_merges(train_by_tokenizers(STYLES["gpt-4"], [array(["a"])], 268, special_tokens()))


def test_a_corpus_with_more_of_a_pair_than_can_be_counted_ends_there():
    texts = [array(["ab ab"]), array(["ab"]), array(["never read"])]
    counts = PairCounts(STYLES["gpt-4"], most=2)
    found = counts.checked(iter(texts))
    assert next(found).to_pylist() == ["ab ab"]
    with pytest.raises(
        BroetchenError, match=r"the pair 'ab' occurs more than 2 times, after 0\.00 GB .* --max-bytes 1MB"
    ):
        next(found)
    # As often as it can be counted is not too often.
    assert len(list(PairCounts(STYLES["gpt-4"], most=3).checked(texts[:2]))) == 2


def test_what_may_be_too_much_is_said():
    # Runs of digits are taken apart, in places that counts of bytes do not tell.
    counts = PairCounts(STYLES["gpt-4"], most=5)
    assert [batch.to_pylist() for batch in counts.checked([array(["1111111111"])])] == [["1111111111"]]
    assert counts.doubt() is not None
    assert "up to 9 times in words, and trainers count to 5" in (counts.doubt() or "")
    assert counted("gpt-4", ["1111111111"]).doubt() is None


def test_little_text_is_not_counted_and_more_than_was_expected_is():
    counts = PairCounts(STYLES["gpt-4"], expected_bytes=10, most=20)
    counts.add(array(["abababab"]))
    assert counts.most_frequent()[1] == 0
    counts.add(array(["abab"]))
    counts.add(array(["ab" * 30]))
    assert counts.most_frequent() == (b"ab", 30)
    assert int(counts.at_most.max()) == 30 + 12
    with pytest.raises(BroetchenError, match="'ab' occurs more than 20 times"):
        list(counts.checked([array(["c"])]))


def test_a_corpus_that_is_likely_too_large_is_warned_of():
    sample = ["the other the other "] * 50
    assert overflow_warning(STYLES["gpt-4"], sample, 2**31) is None
    warning = overflow_warning(STYLES["gpt-4"], sample, 40 * 10**9)
    assert warning is not None
    assert "may have the pair 'he' some 8,000,000,000 times" in warning
    assert "--max-bytes 9663MB should fit" in warning
    assert overflow_warning(STYLES["gpt-4"], [], 10**12) is None
