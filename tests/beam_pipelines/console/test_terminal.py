"""Lines on standard error, of records that services and libraries have a part in."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from beam_pipelines.console import terminal

RUNNER = "apache_beam.runners.dataflow.dataflow_runner"
# As Beam logs it: seconds, function, exception, stack.
RETRY = (
    "Retry with exponential backoff: waiting for %s seconds before retrying %s because we caught exception: %s "
    "Traceback for above exception (most recent call last):\n%s"
)


@pytest.mark.parametrize(
    ("name", "text", "arguments", "shown"),
    [
        (RUNNER, "Job %s is in state %s", ("7", "JOB_STATE_RUNNING"), "Job 7 is in state JOB_STATE_RUNNING\n"),
        (RUNNER, "JOB_MESSAGE_BASIC: a\x1b[31m\r\nbroetchen: b", (), "JOB_MESSAGE_BASIC: a\\u001b[31m broetchen: b\n"),
        (
            RUNNER,
            "9:00: JOB_MESSAGE_ERROR: from worker: Traceback (most recent call last):\n  File x\nOSError: \x07",
            (),
            "9:00: JOB_MESSAGE_ERROR: from worker: OSError: ?\n",
        ),
        (
            "apache_beam.utils.retry",
            RETRY,
            (4.6, "get_job", "google.api_core.exceptions.ServiceUnavailable: 503 GET https://x/y?a=b\n", " File x"),
            "the service does not answer as it should (google.api_core.exceptions.ServiceUnavailable: 503 GET "
            "https://x/y?…); it is asked again in 5 s\n",
        ),
        ("apache_beam.utils.retry", "another", (), ""),
        ("apache_beam.other", "any", (), ""),
    ],
)
def test_records_as_a_user_sees_them(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, arguments: tuple[object, ...], shown: str
) -> None:
    file = io.StringIO()
    monkeypatch.setattr(terminal, "_console", Console(file=file))
    terminal._Lines().emit(logging.LogRecord(name, logging.WARNING, "", 0, text, arguments, None))
    assert file.getvalue() == shown


def test_lines_for_debugging_steer_no_terminal() -> None:
    record = logging.LogRecord("n", logging.DEBUG, "", 0, "a\x1b[31m%s\nb", ("\x07",), None)
    assert terminal._WithoutControls("%(name)s: %(message)s").format(record) == "n: a\\u001b[31m\\u0007\nb"
