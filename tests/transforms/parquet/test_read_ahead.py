"""Reading ahead gives the bytes of the file, for any plan, and any reads."""

from __future__ import annotations

import io
import random
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from transforms.parquet import read_ahead
from transforms.parquet.read_ahead import ReadAhead

CONTENT = random.Random(3).randbytes(5000)
OFFSETS = st.integers(0, len(CONTENT))
RANGES = st.lists(st.tuples(OFFSETS, OFFSETS).map(lambda pair: (min(pair), max(pair))), max_size=6)


@given(ranges=RANGES, reads=st.lists(st.tuples(OFFSETS, st.integers(-1, 2000)), max_size=20))
def test_any_read_gives_the_bytes_of_the_file(ranges: list[tuple[int, int]], reads: list[tuple[int, int]]) -> None:
    with (
        patch.multiple(read_ahead, _SMALLEST_BYTES=50, _LARGEST_BYTES=200),
        ReadAhead(lambda: io.BytesIO(CONTENT)) as handle,
    ):
        handle.plan(ranges)
        plain = io.BytesIO(CONTENT)
        for offset, size in reads:
            assert handle.seek(offset) == plain.seek(offset)
            assert handle.read(size) == plain.read(size)
            assert handle.tell() == plain.tell()


class _Counted:
    """Opens a file of zeros, and counts the bytes that all its handles have read."""

    def __init__(self, size: int) -> None:
        self.content = bytes(size)
        self.reads: list[int] = []

    def __call__(self) -> io.BytesIO:
        reads = self.reads

        class Handle(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                data = super().read(size)
                reads.append(len(data))
                return data

        return Handle(self.content)


def test_each_byte_that_is_planned_and_read_is_fetched_once() -> None:
    source = _Counted(8 << 20)
    ranges = [(1000, 3 << 20), (4 << 20, 8 << 20)]
    with ReadAhead(source) as handle:
        handle.plan(ranges)
        for start, end in ranges:
            handle.seek(start)
            while handle.tell() < end:
                handle.read(min(100_000, end - handle.tell()))
        assert sum(source.reads) == (3 << 20) - 1000 + (4 << 20)


def test_an_early_stop_has_fetched_little_in_vain() -> None:
    source = _Counted(64 << 20)
    handle = ReadAhead(source)
    handle.plan([(0, 64 << 20)])
    handle.read(1 << 20)
    handle.close()
    assert sum(source.reads) <= (1 << 20) + 5 * (512 << 10)
