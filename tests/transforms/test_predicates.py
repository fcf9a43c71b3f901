"""The filters that a config may have, and the messages about others."""

from __future__ import annotations

from typing import Any

import pytest

from transforms.errors import UsageError
from transforms.predicates import alternatives, parse_filters


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ([["a", ">=", 0.9]], [[("a", ">=", 0.9)]]),
        ([["a", "==", True], ["b", "in", [1, 2]]], [[("a", "==", True), ("b", "in", (1, 2))]]),
        ([[["a", "<", 1]], [["a", ">", 2], ["b", "!=", "x"]]], [[("a", "<", 1)], [("a", ">", 2), ("b", "!=", "x")]]),
        ([["a", "in", [1, 0.5]]], [[("a", "in", (1, 0.5))]]),
        # A predicate of a column that is named as a list of them might begin.
        ([["=", "=", "="]], [[("=", "=", "=")]]),
    ],
)
def test_the_forms_of_pyarrow_are_taken(written: Any, expected: Any) -> None:
    assert alternatives(parse_filters(written)) == expected
    assert alternatives(None) == []


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ([], "is no list of filters"),
        ("a > 1", "is no list of filters"),
        ([["a", ">"]], "has 2 parts; write a predicate as [column, op, value]"),
        (["a", ">", 1], "is no predicate [column, op, value] and no list of some"),
        ([[["a", ">", 1]], []], "[] is no predicate"),
        ([["a", "like", "b"]], '"like" is no operator of filters; write one of =, ==, !=, <, >, <=, >=, in, not in'),
        ([[1, ">", 1]], "1 is no name of a column"),
        ([["a", "in", "b"]], '"b" is no list of values; write [a, in, [a, b]]'),
        ([["a", "in", []]], "[] is no list of values"),
        ([["a", "in", [1, "b"]]], "has values of several types"),
        ([["a", "==", None]], "null equals nothing"),
        ([["a", "==", [1]]], "is no value to compare"),
        ([["a", "==", 2**64]], "has more than 64 bits"),
        ([["a", "==", "\ud800"]], "is no value to compare"),
        ([["a", "==", float("nan")]], "is no value to compare"),
    ],
)
def test_what_is_no_filter_is_refused_in_words(written: Any, said: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_filters(written)
    assert said in str(error.value)
