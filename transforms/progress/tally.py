"""The work of each worker so far, in a small file of its own, for the display of progress.

Beam's metrics would be the first thought: its local runner gives them only once a job has ended. A file in a folder
that the workers and the command share works on every runner; where they share none, nothing is counted.

A file holds one line of three numbers: the work done, all work as far as this worker knows, and their sum, by which a
reader tells a line that is half written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import posixpath
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Self

from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.files.own_file import open_own

EXTENSION = "tally"

_LOCAL_INTERVAL_S, _REMOTE_INTERVAL_S = 0.25, 10.0


@dataclasses.dataclass(frozen=True)
class Tallied:
    """The work that is done, and all that is expected, in the unit of the job."""

    done: int = 0
    expected: int = 0


class Tally:
    """Counts the work of one worker, and notes it in a file: at once, then four times a second, remote every 10 s.

    Counting never fails and never waits: where the file cannot be written, nothing is noted, and a remote one is
    written by a thread of its own. Used by one thread.

    Args:
        path: of the file, whose folder is there; None notes nothing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Tally(f"{folder}/a.tally") as tally:
        ...         tally.add(7)
        ...         TallyReader(folder).read().done
        7
    """

    def __init__(self, path: str | None) -> None:
        self.done = self.expected = 0
        self._path = path
        self._is_local = path is not None and storage.is_local(path)
        self._waiting: threading.Timer | None = None
        self._writing = threading.Lock()
        self._next = 0.0

    def add(self, done: int) -> None:
        """Counts work that is done."""
        self.done += done
        if self._path is not None and time.monotonic() >= self._next:
            self._note()

    def expect(self, amount: int) -> None:
        """Counts work that is to be done, by any worker."""
        self.expected += amount
        self._note()

    @contextlib.contextmanager
    def element(self, size: int) -> Iterator[Callable[[int], None]]:
        """Gives a function that counts parts of an element; with the end of the block, `size` is counted in all.

        Parts are often known by another measure than the whole, as bytes of text by a footer.
        """
        left = size

        def add(done: int) -> None:
            nonlocal left
            done = min(done, left)
            left -= done
            self.add(done)

        yield add
        self.done += left
        self._note()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Deletes the file."""
        waiting = self._waiting
        if waiting is not None:
            waiting.cancel()
        with self._writing:
            path, self._path = self._path, None
        if path is not None and self._next:
            with contextlib.suppress(BroetchenError, OSError):
                storage.delete([path])

    def _note(self) -> None:
        if self._path is None:
            return
        if self._is_local:
            self._next = time.monotonic() + _LOCAL_INTERVAL_S
            self._write_local(self._path)
        elif self._waiting is None:
            self._waiting = threading.Timer(max(0.0, self._next - time.monotonic()), self._write_remote)
            self._waiting.daemon = True
            self._next = time.monotonic() + _REMOTE_INTERVAL_S
            self._waiting.start()

    def _line(self) -> bytes:
        # All lines are of one length, so that a shorter one leaves nothing of a longer one.
        done, expected = self.done, self.expected
        return b"%020d %020d %020d\n" % (done, expected, done + expected)

    def _write_local(self, path: str) -> None:
        try:
            descriptor = open_own(path)
            try:
                os.pwrite(descriptor, self._line(), 0)
            finally:
                os.close(descriptor)
        except (BroetchenError, OSError):  # No folder that is shared, no space: the work goes on.
            self._path = None

    def _write_remote(self) -> None:
        self._waiting = None  # Numbers from now on need another one.
        with self._writing, contextlib.suppress(Exception):  # of any kind that a client knows: the next one may work
            if self._path is not None:
                storage.write_bytes(self._path, self._line())


_own = threading.local()


def worker_tally(folder: str | None) -> Tally:
    """The tally of this thread of this process in a folder that workers share; one that notes nothing for None."""
    key = os.getpid(), folder
    if getattr(_own, "key", None) != key:
        path = None if folder is None else posixpath.join(folder, f"{uuid.uuid4().hex}.{EXTENSION}")
        _own.key, _own.tally = key, Tally(path)
    tally: Tally = _own.tally
    return tally


def parse_tally(content: bytes) -> Tallied | None:
    """The numbers in a tally's file; None where it is half written, or none.

    >>> parse_tally(b"7 9 16"), parse_tally(b"7 9 1")
    (Tallied(done=7, expected=9), None)
    """
    parts = content[:100].split()
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        return None
    done, expected, check = map(int, parts)
    return Tallied(done, expected) if done + expected == check else None


class TallyReader:
    """Reads all tallies of a folder again and again; a tally only grows, so a number that was read once stays."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._known: dict[str, Tallied] = {}

    def read(self) -> Tallied:
        """The sum of all.

        Raises:
            BroetchenError: the folder cannot be listed.
        """
        for path, _ in list_files(self._folder, f"*.{EXTENSION}"):
            with contextlib.suppress(BroetchenError):
                if (found := parse_tally(storage.read_bytes(path))) is not None:
                    self._known[path] = found
        return Tallied(sum(one.done for one in self._known.values()), sum(one.expected for one in self._known.values()))
