"""What a pipeline's failure is shown as."""

from __future__ import annotations

import contextlib

import pytest

from beam_pipelines.job_errors import plain_errors
from transforms.errors import BroetchenError, UsageError


def test_an_error_of_ours_comes_without_the_step() -> None:
    with pytest.raises(UsageError, match=r"^no such thing$"), plain_errors():
        raise UsageError("no such thing [while running 'Build/Plan']")


@pytest.mark.parametrize("kind", [BroetchenError, RuntimeError])
def test_an_interrupt_is_one_whatever_failed_because_of_it(kind: type[Exception]) -> None:
    def interrupted() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            with contextlib.suppress(OSError):
                raise OSError
            raise kind("cannot be cleaned up")

    with pytest.raises(KeyboardInterrupt), plain_errors():
        interrupted()
