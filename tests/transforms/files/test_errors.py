"""The messages for the errors of filesystems."""

from __future__ import annotations

import errno
import os
import re
import sys
import types

import google.api_core.exceptions
import google.auth.exceptions
import pytest
from apache_beam.io.filesystem import BeamIOError

from transforms.errors import BroetchenError, UnreachableError
from transforms.files.errors import explain_file_errors, reason_and_advice


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "as a library puts it"), os.strerror(errno.ENOSPC)),
        (BeamIOError("failed", {"gs://b/a": 403}), "HTTP 403 Forbidden"),
        (RuntimeError("no\n  answer \x1b[31m"), "no answer ?[31m"),
        (RuntimeError(" "), "RuntimeError"),
    ],
)
def test_the_innermost_reason_is_on_one_line(error: Exception, reason: str) -> None:
    found, advice = reason_and_advice(error)
    assert found == reason
    assert advice


def test_an_error_of_ours_that_beam_has_wrapped_comes_as_it_is() -> None:
    ours = BroetchenError("a: no such thing")
    with pytest.raises(BroetchenError, match=r"^a: no such thing$"), explain_file_errors("b", "read"):
        raise BeamIOError("failed", {"a": ours})


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (google.api_core.exceptions.TooManyRequests("x"), "wait some minutes, and try it again"),
        (google.api_core.exceptions.PreconditionFailed("x"), "somebody else has changed it meanwhile"),
        (google.api_core.exceptions.ServiceUnavailable("x"), "the object store has a problem: wait a while"),
        (google.api_core.exceptions.Forbidden("x"), "an account that writes also needs to list, read and delete"),
        (google.auth.exceptions.RefreshError("Reauthentication is needed."), "gcloud auth application-default login"),
        (google.auth.exceptions.DefaultCredentialsError("none"), "gcloud auth application-default login"),
    ],
)
def test_what_clients_of_the_bucket_raise_has_its_advice(error: Exception, words: str) -> None:
    words = f"^gs://b/a: cannot be read .*{re.escape(words)}"
    with pytest.raises(BroetchenError, match=words), explain_file_errors("gs://b/a", "read"):
        raise error


def test_a_module_that_is_just_being_imported_knows_no_error_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.auth.exceptions", types.ModuleType("google.auth.exceptions"))
    with pytest.raises(BroetchenError, match=r"^a: cannot be read \(no answer\)"), explain_file_errors("a", "read"):
        raise RuntimeError("no answer")


def test_a_store_that_was_tried_until_its_time_was_up_is_none_of_the_path() -> None:
    error = google.api_core.exceptions.RetryError("Timeout of 120.0s exceeded", ConnectionError("reset"))
    with pytest.raises(UnreachableError, match=r"^gs://b/a: cannot be read"), explain_file_errors("gs://b/a", "read"):
        raise error
