"""First contact with services on loopback that answer, refuse, or never say a word."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_beam.internal.gcp import auth
from apache_beam.options.pipeline_options import PipelineOptions

from tests.support.services.refusing_service import answering
from transforms import first_contact
from transforms.errors import UnreachableError
from transforms.first_contact import expect_answers, make_contact


@pytest.fixture(autouse=True)
def expected(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(first_contact, "_answered", set())
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    expect_answers()
    yield
    expect_answers(False)


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """A port of this machine at which nobody answers: connections are refused unless the test listens there."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield one


def address(one: socket.socket) -> str:
    return f"http://127.0.0.1:{one.getsockname()[1]}"


def test_any_answer_is_contact_and_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(403, "no") as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service)
        make_contact("gs://bucket/a")
    make_contact("gs://bucket/b")  # where nobody is any more


def test_a_service_that_refuses_is_told_while_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, taken: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address(taken))
    started = time.monotonic()
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(UnreachableError, match=r"hub cannot be reached at 127\.0\.0\.1:\d+ \(connection refused\); "),
    ):
        make_contact("hf://datasets/a/b/c.parquet")
    assert time.monotonic() - started < 5.5, "what is refused is known at once"
    assert [record.getMessage().partition("; ")[2] for record in caplog.records] == [
        f"retrying ({number} of 5)" for number in (2, 3, 4, 5)
    ]


def test_a_service_that_is_late_is_waited_for(monkeypatch: pytest.MonkeyPatch, taken: socket.socket) -> None:
    """The first attempt that is answered counts, also while later ones are on their way."""
    monkeypatch.setenv("HF_ENDPOINT", address(taken))
    monkeypatch.setattr(first_contact, "_STARTS_S", (0.0, 0.1, 0.2))
    taken.listen()
    threading.Thread(target=_answer_late, args=(taken,), daemon=True).start()
    make_contact("hf://datasets/a/b/c.parquet")


def _answer_late(taken: socket.socket) -> None:
    connection, _ = taken.accept()
    time.sleep(0.6)
    connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    connection.close()


def test_a_service_that_never_answers_ends_in_time(monkeypatch: pytest.MonkeyPatch, taken: socket.socket) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address(taken))
    monkeypatch.setattr(first_contact, "_STARTS_S", (0.0, 0.2))
    monkeypatch.setattr(first_contact, "_END_S", 0.5)
    taken.listen(8)
    with pytest.raises(UnreachableError, match=r"Google Cloud Storage cannot be reached.*STORAGE_EMULATOR_HOST names"):
        make_contact("gs://bucket/a")


def test_a_name_that_does_not_resolve_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr(first_contact, "_STARTS_S", (0.0,))
    with pytest.raises(UnreachableError, match=r"the name hub\.invalid cannot be resolved"):
        make_contact("hf://datasets/a/b/c.parquet")


@pytest.mark.parametrize("proxy", ["https_proxy", "http_proxy"])
def test_it_is_made_through_the_proxy(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    scheme = proxy.partition("_")[0]
    monkeypatch.setenv("HF_ENDPOINT", f"{scheme}://hub.invalid")
    with answering(403, "no") as service:
        monkeypatch.setenv(proxy, service)
        if scheme == "http":
            make_contact("hf://datasets/a/b/c.parquet")
            return
        # It has no CONNECT, as a proxy that lets nobody out.
        monkeypatch.setattr(first_contact, "_STARTS_S", (0.0,))
        with pytest.raises(UnreachableError, match="Tunnel connection failed"):
            make_contact("hf://datasets/a/b/c.parquet")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
        ("HF_HUB_OFFLINE", "1"),
        ("TRANSFORMERS_OFFLINE", "true"),
        ("HF_ENDPOINT", "x://y"),
        ("HF_ENDPOINT", "http://[::1"),
        ("HF_ENDPOINT", "http://127.0.0.1:99999"),
    ],
)
def test_what_says_nothing_of_the_client_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, taken: socket.socket, variable: str, value: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address(taken))
    monkeypatch.setenv(variable, value)
    make_contact("hf://datasets/a/b/c.parquet")


def test_neither_forks_nor_other_programs_make_contact(monkeypatch: pytest.MonkeyPatch, taken: socket.socket) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address(taken))
    monkeypatch.setattr(first_contact, "_STARTS_S", (0.0,))
    if not (child := os.fork()):
        code = 1
        try:
            make_contact("hf://datasets/a/b/c.parquet")
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    make_contact("file:///a")
    make_contact("/a")
    with pytest.raises(UnreachableError):
        make_contact("hf://datasets/a/b/c.parquet")
    expect_answers(False)
    make_contact("hf://datasets/a/b/c.parquet")


@pytest.mark.parametrize(("variable", "said"), [("", "nobody has signed in here"), ("/no/such/key.json", "/no/such")])
def test_without_credentials_beam_asks_anonymously_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, variable: str, said: str
) -> None:
    """It looks for them five times otherwise; this fails as well where Beam keeps them elsewhere."""
    monkeypatch.setattr(auth._Credentials, "_credentials_init", False)
    monkeypatch.setattr(auth._Credentials, "_credentials", None)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", variable)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with answering(404, "no") as service, caplog.at_level(logging.WARNING):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service)
        make_contact("gs://bucket/a")
        began = time.monotonic()
        assert auth.get_service_credentials(PipelineOptions()) is None
        assert time.monotonic() - began < 1
        make_contact("gs://bucket/b")
    (message,) = (record.getMessage() for record in caplog.records if record.name == first_contact.__name__)
    assert said in message
    assert "only what is public can be read" in message
