"""Quantities as a person writes them: exact both ways, and every refusal."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.errors import UsageError
from transforms.quantities import (
    MAX_QUANTITY,
    format_count,
    format_percent,
    format_size,
    parse_count,
    parse_percent,
    parse_size,
    shown,
)


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("200B", 200_000_000_000),
        ("1.5M", 1_500_000),
        ("400K", 400_000),
        ("400k", 400_000),
        ("2T", 2 * 10**12),
        ("0.001K", 1),
        (" 2 B ", 2 * 10**9),
        ("2_000_000_000", 2 * 10**9),
        ("2e9", 2 * 10**9),
        ("1.1e1", 11),
        (7, 7),
        (0, 0),
        (2e9, 2 * 10**9),
        (str(MAX_QUANTITY), MAX_QUANTITY),
    ],
)
def test_parse_count(written, count):
    assert parse_count(written) == count


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "is not a number of tokens"),
        ("B", "is not a number of tokens"),
        ("1MiB", '"1MiB" is not a number of tokens; write it as 2_000_000_000, 2B'),
        ("1,5M", "is not a number of tokens"),
        ("1__0", "is not a number of tokens"),
        ("5%", "is not a number of tokens"),
        ("0x10", "is not a number of tokens"),
        ("٣", "is not a number of tokens"),
        ("9" * 41, "is not a number of tokens"),
        ("1e999", "is not a number of tokens"),
        ("1e99", "is too large"),
        ("1.5", '"1.5" is not whole'),
        (0.5, "0.5 is not whole"),
        (1e17, "1e[+]17 is a float that cannot be exact"),
        (float("nan"), "nan is a float that cannot be exact"),
        (float("inf"), "inf is a float that cannot be exact"),
        ("-3", '"-3" is negative'),
        (MAX_QUANTITY + 1, "is too large; a number of tokens is at most 9_223_372_036_854_775_807"),
        (True, "true is not a number of tokens"),
        (None, "null is not a number of tokens"),
    ],
)
def test_parse_count_refuses(written, message):
    with pytest.raises(UsageError, match=message):
        parse_count(written)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("512MiB", 512 * 2**20),
        ("64KiB", 65536),
        ("1.5GiB", 3 * 2**29),
        ("1TiB", 2**40),
        ("1kB", 1000),
        ("1KB", 1000),
        ("2MB", 2_000_000),
        ("3GB", 3 * 10**9),
        ("4TB", 4 * 10**12),
        ("5 bytes", 5),
        ("1 byte", 1),
        ("7B", 7),
        ("4096", 4096),
        (4096, 4096),
    ],
)
def test_parse_size(written, size):
    assert parse_size(written) == size


@pytest.mark.parametrize("written", ["512M", "1 KiBs", "MiB", "1%", None])
def test_parse_size_refuses(written):
    with pytest.raises(UsageError, match=r"is not a size; write it as 512MiB \(1024-based\)"):
        parse_size(written)


def test_parse_size_refuses_parts_of_a_byte():
    with pytest.raises(UsageError, match=r'"1.0001KiB" is not whole'):
        parse_size("1.0001KiB")


@given(st.integers(0, MAX_QUANTITY))
def test_a_formatted_count_is_read_back_exactly(count):
    assert parse_count(format_count(count)) == count


@given(st.integers(0, 10**6), st.sampled_from([10**3, 10**6, 10**9]))
def test_a_formatted_round_count_is_short_and_read_back_exactly(count, factor):
    text = format_count(count * factor)
    assert parse_count(text) == count * factor
    assert len(text.replace("_", "")) <= 13


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1K"),
        (400_000, "400K"),
        (400_003, "400.003K"),
        (1_500_000, "1.5M"),
        (2_000_026_571, "2_000_026_571"),
        (200 * 10**9, "200B"),
        (1_000_000_500, "1_000_000_500"),
    ],
)
def test_format_count(count, text):
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (2**20 - 1, "1 MiB"),
        (12_345_678, "11.8 MiB"),
        (512 * 2**20, "512 MiB"),
        (2**50, "1024 TiB"),
    ],
)
def test_format_size(size, text):
    assert format_size(size) == text


@given(st.integers(0, MAX_QUANTITY))
def test_a_formatted_size_is_within_its_rounding(size):
    number, unit = format_size(size).split()
    unit_size = parse_size(f"1{unit}")
    assert abs(Fraction(number) * unit_size - size) <= Fraction(unit_size, 20)


@given(st.integers(0, 10**12), st.integers(0, 10))
def test_percentages_are_exact_both_ways(digits, decimals):
    share = Fraction(digits, 10 ** (decimals + 2))
    if share <= 1:
        assert parse_percent(format_percent(share)) == share


def test_percentages():
    assert parse_percent("33.3%") == Fraction(333, 1000)
    assert parse_percent("100 %") == 1
    assert format_percent(Fraction(1, 8)) == "12.5%"
    with pytest.raises(ValueError, match="1/3"):
        format_percent(Fraction(1, 300))
    for wrong in ("30", "30e0%", "0.3", "%", "1/3", 30, 0.3, None, True):
        with pytest.raises(UsageError, match="is not a percentage; write it as"):
            parse_percent(wrong)


def test_values_in_messages_are_printable_and_short():
    assert shown("a\nb\u202e\x7f\ud800") == r'"a\nb\u202e\x7f\ud800"'
    assert shown({"a": [None, True, 1]}) == '{"a": [null, true, 1]}'
    assert len(shown("x" * 1000)) == 120
