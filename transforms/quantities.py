"""Numbers as people write them: token counts (`200B`), sizes (`512MiB`) and percentages (`33.3%`), all exact.

A quantity is never rounded on the way in: text goes through `fractions.Fraction`, not `float`, and a number that is not
whole number of tokens or bytes is refused.
"""

import json
import math
import re
from fractions import Fraction

from transforms.errors import UsageError

MAX_QUANTITY = 2**63 - 1
"""The largest count or size: that of an int64."""

# Integers up to here have a double of their own, so a float below it is exact.
_MAX_EXACT_FLOAT = 2**53

_COUNT_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_SIZE_UNITS = {
    "": 1, "b": 1, "byte": 1, "bytes": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_BINARY_NAMES = ("KiB", "MiB", "GiB", "TiB")

# Digits are bounded, so that no text can ask for a number of millions of digits.
_DIGITS = r"[0-9](?:_?[0-9]){0,39}"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)(?P<whole>{_DIGITS})(?:\.(?P<decimals>{_DIGITS}))?(?:[eE]\+?(?P<power>[0-9]{{1,2}}))?"
    r"\s*(?P<unit>[A-Za-z]*|%)"
)


def parse_count(value: object) -> int:
    """The number of tokens that `value` names: `parse_count("1.5M") == 1_500_000`.

    Suffixes are decimal, in either case: K (10^3), M (10^6), B (10^9), T (10^12). Digits may be grouped by underscores,
    an exponent (`2e9`) is allowed, and an int stands for itself. A float must be whole and small enough to be exact.

    Raises:
        UsageError: `value` is no such number, is negative, is not whole, or does not fit an int64.
    """
    return _whole(value, _COUNT_UNITS, "a number of tokens", "write it as 2_000_000_000, 2B, 1.5M or 400K")


def parse_size(value: object) -> int:
    """The number of bytes that `value` names: `parse_size("512MiB") == 512 * 2**20`.

    Units, in any case: KiB, MiB, GiB, TiB (powers of 1024), kB, MB, GB, TB (powers of 1000), B or none (bytes).

    Raises:
        UsageError: `value` is no such size, is negative, is not a whole number of bytes, or does not fit an int64.
    """
    return _whole(value, _SIZE_UNITS, "a size", "write it as 512MiB (1024-based), 512MB (1000-based) or in bytes")


def parse_percent(value: object) -> Fraction:
    """The share that `value` names, exactly: `parse_percent("33.3%") == Fraction(333, 1000)`.

    Raises:
        UsageError: `value` is not a decimal number followed by `%`, or lies outside 0 % to 100 %.
    """
    match = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or match["unit"] != "%" or match["power"]:
        hint = f"{value}%" if isinstance(value, int) and 1 <= value <= 100 and not isinstance(value, bool) else "30%"
        raise UsageError(f"{shown(value)} is not a percentage; write it as {hint}, or with decimals as 33.3%")
    share = _fraction(match) / 100
    if not 0 <= share <= 1:
        raise UsageError(f"{shown(value)} is not between 0% and 100%; write the dataset's part of the whole mix")
    return share


def format_count(count: int) -> str:
    """A short form of `count` (0 or more) that `parse_count` reads back exactly: `200B`, `1.5M`, `400_003`.

    A suffix stands only where at most three decimals say it all; underscores group the digits otherwise.
    """
    fitting = [unit for unit, factor in _COUNT_UNITS.items() if factor <= count]
    suffix = fitting[-1] if fitting else ""
    scaled = Fraction(count, _COUNT_UNITS[suffix])
    return f"{_decimal(scaled)}{suffix}" if suffix and (scaled * 1000).denominator == 1 else f"{count:_}"


def format_short(count: float) -> str:
    """A count to three digits, for people: `parse_count` makes about the same number of it.

    >>> [format_short(count) for count in (7, 999.6, 61_449, 1_334_104, 2e11)]
    ['7', '1.00K', '61.4K', '1.33M', '200B']
    """
    units = tuple(_COUNT_UNITS)
    unit = 0
    while round(count) >= 1000 and unit < len(units) - 1:
        count, unit = count / 1000, unit + 1
    digits = 0 if not unit or count >= 99.95 else 1 if count >= 9.995 else 2
    return f"{count:.{digits}f}{units[unit]}"


def format_estimate(count: int, error: int) -> str:
    """A count that may be off by `error`, or that is known where that is 0.

    >>> [format_estimate(72_123_456, 9_234_567), format_estimate(779_345, 0)]
    ['72.1M ± 9.23M', '779,345']
    """
    return f"{format_short(count)} ± {format_short(error)}" if error else f"{count:,}"


def format_size(size: int) -> str:
    """`size` bytes (0 or more), rounded to one decimal of a binary unit: `512 MiB`, `11.8 MiB`, `93 bytes`."""
    if size < 1024:
        return f"{size} {'byte' if size == 1 else 'bytes'}"
    for power, name in enumerate(_BINARY_NAMES, start=1):
        tenths = round(Fraction(size * 10, 1024**power))
        # Compared after rounding: 1024 KiB less one byte is 1 MiB, not 1024 KiB.
        if tenths < 10240 or name == _BINARY_NAMES[-1]:
            break
    return f"{_decimal(Fraction(tenths, 10))} {name}"


def format_share(share: float) -> str:
    """A part of a whole, for people.

    >>> format_share(1 / 3), format_share(1)
    ('33.33 %', '100.00 %')
    """
    return f"{100 * share:.2f} %"


def format_percent(share: Fraction) -> str:
    """`share` as a percentage that `parse_percent` reads back: `33.3%`.

    Raises:
        ValueError: `share` has no finite decimal form, as 1/3 has none.
    """
    return f"{_decimal(share * 100)}%"


def shown(value: object) -> str:
    """`value` for an error message: as a config would have it (`"200G"`, `true`), on one line and not too long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = text if len(text) <= 120 else f"{text[:117]}..."
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _whole(value: object, units: dict[str, int], quantity: str, fix: str) -> int:
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value.strip())
        by_lower_case = {unit.lower(): factor for unit, factor in units.items()}
        factor = None if match is None else by_lower_case.get(match["unit"].lower())
        if match is None or factor is None:
            raise UsageError(f"{shown(value)} is not {quantity}; {fix}")
        exact = _fraction(match) * factor
    elif isinstance(value, float):
        if not math.isfinite(value) or abs(value) > _MAX_EXACT_FLOAT:
            raise UsageError(f"{value} is a float that cannot be exact; write {quantity} as an integer or as text")
        exact = Fraction(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        exact = Fraction(value)
    else:
        raise UsageError(f"{shown(value)} is not {quantity}; {fix}")
    if exact.denominator != 1:
        raise UsageError(f"{shown(value)} is not whole: {quantity} has no fractions; {fix}")
    if exact < 0:
        raise UsageError(f"{shown(value)} is negative; {quantity} is 0 or more")
    if exact > MAX_QUANTITY:
        raise UsageError(f"{shown(value)} is too large; {quantity} is at most {MAX_QUANTITY:_}")
    return exact.numerator


def _fraction(match: re.Match[str]) -> Fraction:
    decimals = (match["decimals"] or "").replace("_", "")
    number = Fraction(int(match["whole"].replace("_", "") + decimals), 10 ** len(decimals))
    scale = Fraction(10) ** int(match["power"] or 0)
    return -number * scale if match["sign"] == "-" else number * scale


def _decimal(number: Fraction) -> str:
    """`number`, 0 or more, as a decimal without an exponent or trailing zeros."""
    places = 0
    scaled = number
    while scaled.denominator != 1:
        if math.gcd(scaled.denominator, 10) == 1:
            raise ValueError(f"{number} has no finite decimal form")
        scaled *= 10
        places += 1
    digits = f"{scaled.numerator:0{places + 1}}"
    return f"{digits[:-places]}.{digits[-places:]}" if places else digits
