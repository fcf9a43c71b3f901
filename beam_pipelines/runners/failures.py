"""Errors of a pipeline in plain words, the death of a worker process among them, for which Beam would wait for ever.

Beam starts each worker of its multi-process mode from a thread, which raises an error when the worker has not ended
well (`SubprocessSdkWorker.run` in `apache_beam/runners/portability/local_job_service.py`, 2.77). Nobody looks at that
error: a driver that was waiting for the worker waits on. So it is caught here.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator

import psutil

from beam_pipelines.console import terminal
from beam_pipelines.runners.service_errors import LOCAL, in_words, place_of, worker_died
from transforms.errors import BroetchenError, UnreachableError, UsageError
from transforms.locks.interruption import interruptible

# The name of Beam's threads that wait for a worker process, each.
_THREAD = "run_worker"
# Mostly Beam does notice, and then has a moment to end by itself.
_NOTICED_S = 5.0
# An interrupted pipeline tidies up, and may also wait for the dead worker then.
_TIDIED_S = 30.0


@contextlib.contextmanager
def ended_with_workers() -> Iterator[None]:
    """Ends the block within a minute of a worker's death.

    Raises:
        BroetchenError: a worker process died, and the block did not end by itself.
    """
    deadlines: list[threading.Timer] = []
    before = threading.excepthook
    with interruptible(worker_died()) as interruption:

        def notice(arguments: threading.ExceptHookArgs) -> None:
            if arguments.thread is None or arguments.thread.name != _THREAD:
                before(arguments)
            elif not deadlines:
                deadlines.append(_after(_NOTICED_S, interruption))
                if interruption.in_main_thread and terminal.is_command():
                    deadlines.append(_after(_NOTICED_S + _TIDIED_S, _give_up))

        threading.excepthook = notice
        try:
            yield
        finally:
            threading.excepthook = before
            for deadline in deadlines:
                deadline.cancel()


def _after(seconds: float, call: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()
    return timer


def _give_up() -> None:
    """Ends this process and its workers at once; the next build goes on from the files that are left."""
    terminal.say(f"broetchen: {worker_died()}")
    sys.stdout.flush()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(BroetchenError.exit_code)


# Runners that work in other threads and processes hand back a traceback as text; ours ends it as "module.Class: text".
_OURS = re.compile(
    r"transforms\.errors\.(BroetchenError|UnreachableError|UsageError): (.*?)(?: \[while running '|\n\n|\Z)", re.DOTALL
)
_STEP = re.compile(r" \[while running '[^']*'\]")
_CLASSES = {kind.__name__: kind for kind in (BroetchenError, UnreachableError, UsageError)}
WORKER_DIED = "Channel closed prematurely"
"""How Beam says that a worker process is gone."""
# The words before its errors about options.
_INVALID_OPTIONS = "Pipeline has validations errors:"


@contextlib.contextmanager
def plain_errors(runner: str | None = None) -> Iterator[None]:
    """Raises an error of ours that ended a pipeline as itself, without Beam's wrapping, and a service's in words.

    Args:
        runner: Beam's name of the runner; None for this machine.

    Raises:
        KeyboardInterrupt: the user stopped the pipeline.
        UsageError: Beam refuses its options.
        BroetchenError: our code raised one, a worker process died, or a service failed.
    """
    place = place_of(runner)
    with ended_with_workers():
        try:
            yield
        except Exception as error:
            if was_interrupted(error):
                raise KeyboardInterrupt from error
            if isinstance(error, BroetchenError):
                raise type(error)(_STEP.sub("", str(error))) from error
            found = find_error(str(error), place) or in_words(error, place)
            if found is None:
                raise
            raise found from error


def find_error(text: str, place: str = LOCAL) -> BroetchenError | None:
    """The last error of ours in a runner's message, or the meaning of the message.

    >>> find_error("Traceback …\\ntransforms.errors.BroetchenError: a.parquet: cut short [while running 'Plan']")
    BroetchenError('a.parquet: cut short')
    """
    matches = _OURS.findall(text)
    if matches:
        kind, message = matches[-1]
        return _CLASSES[kind](message.strip())
    if WORKER_DIED in text:
        return worker_died(place)
    if text.startswith(_INVALID_OPTIONS):
        return UsageError("; ".join(text.removeprefix(_INVALID_OPTIONS).split("\n")).strip("; ") or text)
    return None


def was_interrupted(error: BaseException | None) -> bool:
    """Whether an error has come of Ctrl-C."""
    # Beam makes a RuntimeError of Ctrl-C in a step, and keeps the cause; the cleaning up after it may fail in turn.
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
