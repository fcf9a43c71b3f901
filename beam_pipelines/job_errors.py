"""Finds the error that a pipeline failed of, under what runners wrap around it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from transforms.errors import BroetchenError, UsageError

# Runners that work in other threads and processes hand back a traceback as text; ours ends it as "module.Class: text".
_OURS = re.compile(r"transforms\.errors\.(BroetchenError|UsageError): (.*?)(?: \[while running '|\n\n|\Z)", re.DOTALL)
_STEP = re.compile(r" \[while running '[^']*'\]")
_CLASSES = {"BroetchenError": BroetchenError, "UsageError": UsageError}


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Raises an error of ours that ended a pipeline as itself, without Beam's wrapping."""
    try:
        yield
    except BroetchenError as error:
        raise type(error)(_STEP.sub("", str(error))) from error
    except Exception as error:
        found = find_error(str(error))
        if found is None:
            raise
        raise found from error


def find_error(text: str) -> BroetchenError | None:
    """The last error of ours in a runner's message.

    >>> find_error("Traceback …\\ntransforms.errors.BroetchenError: a.parquet: cut short [while running 'Plan']")
    BroetchenError('a.parquet: cut short')
    """
    matches = _OURS.findall(text)
    if not matches:
        return None
    kind, message = matches[-1]
    return _CLASSES[kind](message.strip())
