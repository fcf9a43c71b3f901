"""Predicates on the columns of a source, in the form that pyarrow, pandas and datasets have.

`[column, op, value]`: all in a list must hold, or one of several such lists. `transforms.parquet.row_filter` applies
them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from transforms.errors import UsageError
from transforms.quantities import shown

Predicate = tuple[str, str, Any]
Written = tuple[Predicate, ...] | tuple[tuple[Predicate, ...], ...]

OPERATORS = ("=", "==", "!=", "<", ">", "<=", ">=", "in", "not in")
_END = 2**63
_EXAMPLE = '[[language_score, ">=", 0.9]]'


def parse_filters(value: Any) -> Written:
    """Predicates, or lists of them, in the form in which they were written.

    Raises:
        UsageError: they are something else.

    >>> parse_filters([["score", ">=", 0.9], ["language", "in", ["de", "en"]]])
    (('score', '>=', 0.9), ('language', 'in', ('de', 'en')))
    """
    if not isinstance(value, list | tuple) or not value:
        raise UsageError(f"{shown(value)} is no list of filters; write predicates [column, op, value]: {_EXAMPLE}")
    if all(_is_predicate(one) for one in value):
        return tuple(_parse_predicate(one) for one in value)
    found = []
    for every in value:
        if not isinstance(every, list | tuple) or not every or not all(isinstance(one, list | tuple) for one in every):
            raise UsageError(
                f"{shown(every)} is no predicate [column, op, value] and no list of some; write all predicates in one "
                f"list, as {_EXAMPLE}, or several such lists, one of which must hold"
            )
        found.append(tuple(_parse_predicate(one) for one in every))
    return tuple(found)


def _is_predicate(value: Any) -> bool:
    """Whether it begins as a predicate does; a list of predicates begins with one."""
    return isinstance(value, list | tuple) and bool(value) and not isinstance(value[0], list | tuple)


def _parse_predicate(value: Sequence[Any]) -> Predicate:
    if len(value) != 3:
        raise UsageError(f"{shown(value)} has {len(value)} parts; write a predicate as [column, op, value]: {_EXAMPLE}")
    column, op, wanted = value
    if not isinstance(column, str) or not column:
        raise UsageError(f"{shown(column)} is no name of a column; write [column, op, value]: {_EXAMPLE}")
    if op not in OPERATORS:
        raise UsageError(f"{shown(op)} is no operator of filters; write one of {', '.join(OPERATORS)}, in quotes")
    if op in ("in", "not in"):
        if not isinstance(wanted, list | tuple) or not wanted:
            raise UsageError(f"{shown(wanted)} is no list of values; write [{column}, {op}, [a, b]]")
        if len({_kind(one) for one in wanted}) > 1:
            raise UsageError(f"{shown(wanted)} has values of several types; write texts, numbers or booleans alone")
        return column, op, tuple(_parse_value(column, one) for one in wanted)
    return column, op, _parse_value(column, wanted)


def _parse_value(column: str, value: Any) -> Any:
    if value is None:
        raise UsageError(
            f"null equals nothing, not even null: no row would pass by {shown(column)}; write a value (nulls pass `not "
            "in` alone)"
        )
    if not isinstance(value, str | int | float):
        raise UsageError(
            f"{shown(value)} is no value to compare {shown(column)} with; write a text, a number or a boolean"
        )
    if (isinstance(value, str) and not _is_unicode(value)) or (isinstance(value, float) and not math.isfinite(value)):
        raise UsageError(f"{shown(value)} is no value to compare {shown(column)} with; write a text or a number")
    if isinstance(value, int) and not -_END <= value < _END:
        raise UsageError(f"{shown(value)} has more than 64 bits; write a smaller number")
    return value


def _kind(value: Any) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def _is_unicode(value: str) -> bool:
    """Whether a text is one; half of a surrogate pair, which YAML can write, is none."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def alternatives(filters: Written | None) -> list[list[Predicate]]:
    """The lists of predicates, one of which must hold.

    >>> alternatives((("score", ">=", 0.9),))
    [[('score', '>=', 0.9)]]
    >>> alternatives(((("score", ">=", 0.9),), (("id", "==", "a"),)))
    [[('score', '>=', 0.9)], [('id', '==', 'a')]]
    """
    if not filters:
        return []
    several = [filters] if isinstance(filters[0][0], str) else filters
    return [[(column, op, value) for column, op, value in every] for every in several]
