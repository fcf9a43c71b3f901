"""Reading remote files in known ranges, the next ones fetched while the last are worked on."""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

# A request to a distant store takes tens of milliseconds, most of which it waits: five at a time keep an encoder busy.
# More of them, and smaller, cost more of the processor than the encoder can spare.
_PIECES_AHEAD = 4
_SMALLEST_BYTES = 512 << 10
_LARGEST_BYTES = 8 << 20
# A reader that stops early has fetched five pieces in vain at most, each this part of the bytes that it has read.
_PART_OF_WHAT_IS_READ = 128


class ReadAhead(io.RawIOBase):
    """A file that fetches the extents of `plan` in pieces, by threads; all else it reads when it is asked.

    At most four pieces (growing to 8 MiB each) are held beside the one that is being read, and fewer at first.

    Args:
        open_source: opens the file as a seekable binary one; called once for each thread, and once at the beginning.
        read_before: bytes that the same reader has read of other files: it has shown that it goes on.
        smallest_bytes: of a piece.
    """

    def __init__(
        self, open_source: Callable[[], Any], read_before: int = 0, *, smallest_bytes: int = _SMALLEST_BYTES
    ) -> None:
        super().__init__()
        self._open_source, self._smallest_bytes = open_source, smallest_bytes
        self._source = open_source()
        self._of_thread = threading.local()
        self._sources = [self._source]
        self._size: int = self._source.seek(0, io.SEEK_END)
        self._position = 0
        self._delivered = read_before
        self._planned: Iterator[tuple[int, int]] = iter(())
        self._rest: tuple[int, int] = (0, 0)
        self._ahead: deque[tuple[int, int, Future[bytes]]] = deque()
        self._pool = ThreadPoolExecutor(_PIECES_AHEAD, thread_name_prefix="read-ahead")

    def plan(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Starts fetching `ranges`, as (start, end) in bytes, in the order in which they will be read."""
        self._planned = iter(ranges)
        self._top_up()

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves, and fetches nothing."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, fewer only at the end of the file; all the rest where `size` is negative."""
        end = self._size if size < 0 else min(self._size, self._position + size)
        parts = []
        while self._position < end:
            part = self._next_part(end)
            self._position += len(part)
            self._delivered += len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Stops fetching, and closes all handles."""
        if not self.closed:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._ahead.clear()
            for source in self._sources:
                source.close()
        super().close()

    def _next_part(self, end: int) -> bytes:
        while self._ahead and self._ahead[0][1] <= self._position:
            self._ahead.popleft()
            self._top_up()
        if self._ahead and self._ahead[0][0] <= self._position:
            start, piece_end, piece = self._ahead[0]
            return piece.result()[self._position - start : min(end, piece_end) - start]
        if self._ahead and self._position < self._ahead[0][0] < end:
            end = self._ahead[0][0]
        return _read_range(self._source, self._position, end)

    def _top_up(self) -> None:
        # One piece at first: some readers look only at the beginning.
        while len(self._ahead) <= min(_PIECES_AHEAD, self._delivered // self._smallest_bytes):
            start, end = self._rest
            while start >= end:
                following = next(self._planned, None)
                if following is None:
                    return
                start, end = following
            piece = min(_LARGEST_BYTES, max(self._smallest_bytes, self._delivered // _PART_OF_WHAT_IS_READ))
            stop = min(end, start + piece)
            self._ahead.append((start, stop, self._pool.submit(self._fetch, start, stop)))
            self._rest = (stop, end)

    def _fetch(self, start: int, end: int) -> bytes:
        source = getattr(self._of_thread, "source", None)
        if source is None:
            source = self._of_thread.source = self._open_source()
            self._sources.append(source)
        return _read_range(source, start, end)


def _read_range(source: Any, start: int, end: int) -> bytes:
    source.seek(start)
    parts = []
    while start < end:
        part = source.read(end - start)
        if not part:
            raise OSError(f"the file ends at byte {start:,}, before the {end:,} that it should have")
        parts.append(part)
        start += len(part)
    return b"".join(parts)
