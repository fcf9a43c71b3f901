"""Ends the work of the main thread from another one, as Ctrl-C would, and for a reason that is then told.

By a signal, which also ends a wait, but not by that of Ctrl-C: a shell has the commands that a script starts in the
background ignore it, and a program that calls us may have its own use for it. SIGURG, which says that a socket has
urgent data, is ignored by default: one that comes late does nothing, and processes that are started meanwhile inherit
what they always do.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNAL = signal.SIGURG


class Interruption:
    """Called by another thread, interrupts the main thread if that is where it was made; `called` tells it was."""

    def __init__(self) -> None:
        self.called = False
        self._thread = threading.get_ident()

    @property
    def in_main_thread(self) -> bool:
        """Whether there is anything to interrupt."""
        return self._thread == threading.main_thread().ident

    def __call__(self) -> None:
        self.called = True
        if self.in_main_thread:
            signal.pthread_kill(self._thread, _SIGNAL)


@contextlib.contextmanager
def interruptible(reason: Exception) -> Iterator[Interruption]:
    """A block that ends with `reason` once its `Interruption` has been called; outside of the main thread, at its end.

    Raises:
        Exception: `reason`.
    """
    interruption = Interruption()
    try:
        with _listening(interruption):
            yield interruption
    except BaseException as error:
        if interruption.called:
            raise reason from error
        raise
    if interruption.called:
        raise reason


@contextlib.contextmanager
def _listening(interruption: Interruption) -> Iterator[None]:
    if not interruption.in_main_thread:
        yield
        return

    before = signal.getsignal(_SIGNAL)

    def interrupt(number: int, frame: FrameType | None) -> None:
        if interruption.called:
            raise KeyboardInterrupt
        if callable(before):  # An outer block's, or somebody else's.
            before(number, frame)

    signal.signal(_SIGNAL, interrupt)
    try:
        yield
    finally:
        # None stands for a handler of other languages, which Python cannot put back.
        signal.signal(_SIGNAL, before or signal.SIG_DFL)
