"""Ending what the main thread does from another thread, as Ctrl-C would, and for a reason that is then told."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


class Interruption:
    """Called by another thread, interrupts the main thread if that is where it was made; `called` tells it was."""

    def __init__(self) -> None:
        self.called = False
        self._thread = threading.current_thread()

    @property
    def in_main_thread(self) -> bool:
        """Whether there is anything to interrupt."""
        return self._thread is threading.main_thread()

    def __call__(self) -> None:
        self.called = True
        if self.in_main_thread and self._thread.ident is not None:
            # A real signal, which also ends a wait.
            signal.pthread_kill(self._thread.ident, signal.SIGINT)


@contextlib.contextmanager
def interruptible(reason: Exception) -> Iterator[Interruption]:
    """A block that ends with `reason` once its `Interruption` has been called; outside of the main thread, at its end.

    Raises:
        Exception: `reason`.
    """
    interruption = Interruption()
    try:
        yield interruption
    except BaseException as error:
        if interruption.called:
            raise reason from error
        raise
    if interruption.called:
        raise reason
