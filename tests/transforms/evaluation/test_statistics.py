"""Statistics of texts against plain loops, and their sums."""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter
from collections.abc import Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that
from hypothesis import given
from hypothesis import strategies as st

from transforms.evaluation.metrics import measure
from transforms.evaluation.statistics import (
    StatisticsCoder,
    SumStatistics,
    TokenStatistics,
    count_ids,
    count_words,
    text_statistics,
)
from transforms.evaluation.vocabulary import Vocabulary

# Separators of words and lines, and characters of several bytes, among characters that separate nothing.
texts = st.lists(
    st.text(st.sampled_from("aZß9_ -'’.\n\r\t\u0301\u093f\u200d日🙂\x1c\x85\u2028"), min_size=1), max_size=5
)
id_lists = st.lists(st.integers(0, 40), max_size=60)


def large(documents: Sequence[str]) -> pa.LargeStringArray:
    return pa.array(documents, pa.large_string())


def is_word_character(character: str) -> bool:
    return character.isalnum() or character in "_\u200c\u200d" or unicodedata.category(character) in ("Mn", "Mc", "Me")


def naive_words(text: str) -> list[str]:
    return ["".join(group) for is_word, group in itertools.groupby(text, is_word_character) if is_word]


def naive_lines(text: str) -> list[str]:
    return [line for line in text.replace("\r", "\n").split("\n") if line]


def statistics_of(ids: Sequence[int], **others: int) -> TokenStatistics:
    return TokenStatistics(counts=count_ids(np.array(ids, np.uint32)), **others)


def same(a: TokenStatistics, b: TokenStatistics) -> bool:
    return a.scalars() == b.scalars() and np.array_equal(a.counts, b.counts)


@given(texts)
def test_texts_are_measured_as_by_plain_loops(documents: list[str]) -> None:
    found = text_statistics(large(documents))
    assert found.documents == len(documents)
    assert found.text_bytes == sum(len(text.encode()) for text in documents)
    assert found.characters == sum(map(len, documents))
    assert found.lines == sum(len(naive_lines(text)) for text in documents)
    assert count_words(large(documents)) == Counter(word for text in documents for word in naive_words(text))


@given(st.lists(id_lists, max_size=4))
def test_statistics_of_parts_add_up_in_any_order(parts: list[list[int]]) -> None:
    whole = statistics_of(
        [one for part in parts for one in part], documents=len(parts), words=sum(len(part) for part in parts)
    )
    each = [statistics_of(part, documents=1, words=len(part)) for part in parts]
    combine = SumStatistics()
    for order in (each, each[::-1]):
        assert same(combine.apply(order), whole)
        halves = [combine.apply(order[:2]), combine.create_accumulator(), combine.apply(order[2:])]
        assert same(combine.extract_output(combine.merge_accumulators(halves)), whole)
        assert measure(combine.apply(order), Vocabulary(64)) == measure(whole, Vocabulary(64))
    coder = StatisticsCoder()
    assert same(coder.decode(coder.encode(whole)), whole)


def test_beam_adds_statistics_by_key() -> None:
    parts = [("a", statistics_of([1, 1, 5], documents=1)), ("b", statistics_of([0], documents=2))]

    def check(found: list[tuple[str, TokenStatistics]]) -> None:
        assert same(dict(found)["a"], statistics_of([1] * 8 + [5] * 4, documents=4))
        assert same(dict(found)["b"], statistics_of([0] * 4, documents=8))

    with TestPipeline() as pipeline:
        assert_that(pipeline | beam.Create(parts * 4) | beam.Reshuffle() | beam.CombinePerKey(SumStatistics()), check)


def test_words_hold_their_marks() -> None:
    text = "Das Bro\u0308tchen kostet 2,50 €, nicht-wahr? हिन्दी snake_case"
    assert count_words(large([text])) == Counter(
        ["Das", "Bro\u0308tchen", "kostet", "2", "50", "nicht", "wahr", "हिन्दी", "snake_case"]
    )
