"""Finds the error that a pipeline failed of, under what runners wrap around it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from beam_pipelines.worker_deaths import ended_with_workers, worker_died
from transforms.errors import BroetchenError, UsageError

# Runners that work in other threads and processes hand back a traceback as text; ours ends it as "module.Class: text".
_OURS = re.compile(r"transforms\.errors\.(BroetchenError|UsageError): (.*?)(?: \[while running '|\n\n|\Z)", re.DOTALL)
_STEP = re.compile(r" \[while running '[^']*'\]")
_CLASSES = {"BroetchenError": BroetchenError, "UsageError": UsageError}
# How Beam says that a worker process is gone, and how it introduces what is wrong with its options.
_WORKER_DIED, _INVALID_OPTIONS = "Channel closed prematurely", "Pipeline has validations errors:"


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Raises an error of ours that ended a pipeline as itself, without Beam's wrapping.

    Raises:
        KeyboardInterrupt: the user stopped the pipeline.
        UsageError: Beam refuses its options.
        BroetchenError: whatever our code raised as one, or a worker process died.
    """
    with ended_with_workers():
        try:
            yield
        except Exception as error:
            if _was_interrupted(error):
                raise KeyboardInterrupt from error
            if isinstance(error, BroetchenError):
                raise type(error)(_STEP.sub("", str(error))) from error
            found = find_error(str(error))
            if found is None:
                raise
            raise found from error


def find_error(text: str) -> BroetchenError | None:
    """The last error of ours in a runner's message, or what the message means.

    >>> find_error("Traceback …\\ntransforms.errors.BroetchenError: a.parquet: cut short [while running 'Plan']")
    BroetchenError('a.parquet: cut short')
    """
    matches = _OURS.findall(text)
    if matches:
        kind, message = matches[-1]
        return _CLASSES[kind](message.strip())
    if _WORKER_DIED in text:
        return worker_died()
    if text.startswith(_INVALID_OPTIONS):
        return UsageError("; ".join(text.removeprefix(_INVALID_OPTIONS).split("\n")).strip("; ") or text)
    return None


def _was_interrupted(error: BaseException | None) -> bool:
    # Beam makes a RuntimeError of Ctrl-C in a step, and keeps the cause; what is cleaned up then may fail in turn.
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
