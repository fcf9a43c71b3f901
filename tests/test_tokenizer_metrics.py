"""Metrics of tokenizers against direct computation, and the sums of their statistics."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections import Counter
from collections.abc import Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that
from hypothesis import given
from hypothesis import strategies as st

from transforms.tokenizer_metrics import (
    METRICS,
    StatisticsCoder,
    SumStatistics,
    TokenStatistics,
    Vocabulary,
    count_ids,
    count_words,
    measure,
    metric,
    renyi_efficiency,
    text_statistics,
)

# What separates words, lines and characters of several bytes, among what does not.
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


@given(id_lists, st.lists(st.integers(0, 50), max_size=3, unique=True), st.integers(41, 60), st.integers(0, 9))
def test_metrics_are_what_their_definitions_say(ids: list[int], some: list[int], size: int, words: int) -> None:
    vocabulary = Vocabulary(size, unknown_ids=tuple(some[:1]), byte_ids=tuple(some[1:]))
    statistics = statistics_of(
        ids, text_bytes=99, characters=88, lines=words, words=words, whole_words=words // 2, encode_ns=11_000
    )
    shares = [count / len(ids) for count in Counter(ids).values()]
    expected = {
        "vocabulary_size": size,
        "tokens": len(ids),
        "bytes_per_token": 99 / len(ids) if ids else None,
        "characters_per_token": 88 / len(ids) if ids else None,
        "fertility": len(ids) / words if words else None,
        "whole_word_share": (words // 2) / words if words else None,
        "tokens_per_line": len(ids) / words if words else None,
        "renyi_efficiency": math.log2(sum(p**2.5 for p in shares)) / -1.5 / math.log2(size) if ids else None,
        "vocabulary_utilization": len(set(ids)) / size,
        "type_token_ratio": len(set(ids)) / len(ids) if ids else None,
        "unknown_rate": sum(one in some[:1] for one in ids) / len(ids) if ids else None,
        "byte_fallback_rate": sum(one in some[1:] for one in ids) / len(ids) if ids else None,
        "encode_mb_per_s": 9.0,  # 99 bytes in 11 µs
    }
    found = measure(statistics, vocabulary)
    assert list(found) == [metric.key for metric in METRICS] == list(expected)
    for key, value in expected.items():
        assert found[key] == (None if value is None else pytest.approx(value, abs=1e-12)), key


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


def test_renyi_efficiency_of_distributions_that_are_known() -> None:
    uniform = statistics_of(list(range(16)) * 3)
    assert renyi_efficiency(uniform, Vocabulary(16)) == pytest.approx(1)
    # Half of the entropy of 256 entries is that of 16.
    assert renyi_efficiency(uniform, Vocabulary(256)) == pytest.approx(0.5)
    assert renyi_efficiency(statistics_of([7] * 5), Vocabulary(16)) == 0
    # Order 2: collision entropy, -log(1/4 + 1/16 + 1/16).
    assert renyi_efficiency(statistics_of([0, 0, 1, 2]), Vocabulary(4), alpha=2) == pytest.approx(
        math.log(8 / 3) / math.log(4)
    )
    assert renyi_efficiency(statistics_of([0]), Vocabulary(1)) is None


def test_words_hold_their_marks() -> None:
    text = "Das Bro\u0308tchen kostet 2,50 €, nicht-wahr? हिन्दी snake_case"
    assert count_words(large([text])) == Counter(
        ["Das", "Bro\u0308tchen", "kostet", "2", "50", "nicht", "wahr", "हिन्दी", "snake_case"]
    )


def test_the_best_value_is_the_right_end_and_none_where_neither_end_is_better() -> None:
    assert metric("fertility").best([1.5, None, 1.25, 2.0]) == "1.25"
    assert metric("bytes_per_token").best([4.0, 5.0]) == "5.00"
    assert metric("type_token_ratio").best([0.1, 0.2]) is None
    assert metric("unknown_rate").best([0.0, 0.0]) is None
    assert metric("unknown_rate").best([None, None]) is None
    assert {one.key for one in METRICS if one.better is None} == {"vocabulary_size", "tokens", "type_token_ratio"}
