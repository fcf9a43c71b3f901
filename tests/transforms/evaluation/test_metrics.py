"""Metrics of tokenizers against direct computation."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transforms.evaluation.test_statistics import id_lists, statistics_of
from transforms.evaluation.metrics import METRICS, measure, metric, renyi_efficiency
from transforms.evaluation.vocabulary import Vocabulary


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


def test_the_best_value_is_the_right_end_and_none_where_neither_end_is_better() -> None:
    assert metric("fertility").best([1.5, None, 1.25, 2.0]) == "1.25"
    assert metric("bytes_per_token").best([4.0, 5.0]) == "5.00"
    assert metric("type_token_ratio").best([0.1, 0.2]) is None
    assert metric("unknown_rate").best([0.0, 0.0]) is None
    assert metric("unknown_rate").best([None, None]) is None
    assert {one.key for one in METRICS if one.better is None} == {"vocabulary_size", "tokens", "type_token_ratio"}
