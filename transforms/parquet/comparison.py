"""Comparisons of a column with values of a config, as pyarrow's expressions. Pure: nothing is read.

Values are brought to the column's type first, where the comparison stays what it is in numbers: pyarrow itself takes a
number such as 1000.0 for a 32-bit float, and finds whole numbers beyond 2²⁴ out of range then; its `isin` takes a value
for the nearest of the column's type, and statistics for others.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_COMPARISONS: dict[str, Callable[[Any, Any], pc.Expression]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


def compared(field: pc.Expression, kind: pa.DataType, op: str, value: Any) -> pc.Expression:
    """The expression that says for which rows a predicate holds; it is null, or false, where it does not.

    Args:
        field: of the column.
        kind: its type, or that of its entries where it is a dictionary.
        op: one of `transforms.predicates.OPERATORS`.
        value: to compare it with; of `in` and `not in` a list.

    Raises:
        TypeError: values of that type are not compared with such a column.
        pa.ArrowException: pyarrow has no such value, or no such comparison.
    """
    field, kind = _without_rare_types(field, kind)
    if op in ("in", "not in"):
        among = _among(field, kind, value)
        return ~among if op == "not in" else among
    if pa.types.is_null(kind):
        return pc.scalar(False)
    if pa.types.is_integer(kind):
        return _compared_whole(field, kind, op, _number(kind, value))
    return _COMPARISONS[op](field, pc.scalar(_scalar(kind, value)))


def _without_rare_types(field: pc.Expression, kind: pa.DataType) -> tuple[pc.Expression, pa.DataType]:
    """A column as one of a type that pyarrow compares."""
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        kind = pa.large_string() if pa.types.is_string_view(kind) else pa.large_binary()
    elif pa.types.is_float16(kind):
        kind = pa.float32()
    elif pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        kind = pa.decimal128(kind.precision, kind.scale)
    else:
        return field, kind
    return field.cast(kind), kind


def _among(field: pc.Expression, kind: pa.DataType, values: Sequence[Any]) -> pc.Expression:
    """Whether a value is one of some; of a null it is false."""
    if pa.types.is_null(kind):
        return pc.scalar(False)
    if pa.types.is_integer(kind):
        low, high = _bounds(kind)
        whole = (int(one) for one in (_number(kind, value) for value in values) if one == math.floor(one))
        there = [one for one in whole if low <= one <= high]
        return field.isin(pa.array(there, kind)) if there else pc.scalar(False)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_boolean(kind):
        return field.is_valid() & _any_of(field == pc.scalar(_scalar(kind, value)) for value in values)
    _scalar(kind, values[0])  # all are of one type
    if pa.types.is_temporal(kind):
        return field.isin(pa.array(values).cast(kind))
    return field.isin(pa.array([value.encode() for value in values] if _is_binary(kind) else values, kind))


def _is_binary(kind: pa.DataType) -> bool:
    is_fixed = pa.types.is_fixed_size_binary(kind) and not pa.types.is_decimal(kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or is_fixed)


def _any_of(expressions: Iterable[pc.Expression]) -> pc.Expression:
    """Joins expressions in pairs of pairs, since they are walked through by recursion."""
    level = list(expressions)
    while len(level) > 1:
        level = [functools.reduce(operator.or_, level[place : place + 2]) for place in range(0, len(level), 2)]
    return level[0]


def _bounds(kind: pa.DataType) -> tuple[int, int]:
    if pa.types.is_unsigned_integer(kind):
        return 0, (1 << kind.bit_width) - 1
    return -(1 << (kind.bit_width - 1)), (1 << (kind.bit_width - 1)) - 1


def _compared_whole(field: pc.Expression, kind: pa.DataType, op: str, value: float) -> pc.Expression:
    """A comparison of whole numbers with any number, as one with a whole number that the column's type has."""
    low, high = _bounds(kind)
    if op in ("=", "==", "!="):
        equal = value == math.floor(value) and low <= value <= high
        if not equal:
            return field.is_valid() if op == "!=" else pc.scalar(False)
        return _COMPARISONS[op](field, pc.scalar(pa.scalar(int(value), kind)))
    if op in ("<", "<="):
        most = math.ceil(value) - 1 if op == "<" else math.floor(value)
        if most < low:
            return pc.scalar(False)
        return field.is_valid() if most >= high else field <= pc.scalar(pa.scalar(most, kind))
    least = math.floor(value) + 1 if op == ">" else math.ceil(value)
    if least > high:
        return pc.scalar(False)
    return field.is_valid() if least <= low else field >= pc.scalar(pa.scalar(least, kind))


def _number(kind: pa.DataType, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{kind} is compared with numbers")
    return value


def _scalar(kind: pa.DataType, value: Any) -> pa.Scalar:
    if pa.types.is_boolean(kind):
        if not isinstance(value, bool):
            raise TypeError("it is compared with true and false")
        return pa.scalar(value)
    if pa.types.is_floating(kind):
        return pa.scalar(float(_number(kind, value)), pa.float64())
    if pa.types.is_decimal(kind):
        return pa.scalar(Decimal(str(_number(kind, value))))
    if not isinstance(value, str):
        raise TypeError(f"{kind} is compared with text")
    if pa.types.is_temporal(kind):
        return pa.scalar(value).cast(kind)
    if _is_binary(kind):
        return pa.scalar(value.encode(), kind)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise TypeError(f"columns of {kind} are not compared")
    return pa.scalar(value, kind)
