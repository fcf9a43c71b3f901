"""Answers of the hub and its stores are compared with the plan, and the signatures of addresses are never told."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_beam.io.filesystems import FileSystems

from tests.support.services.hub_server import SIGNATURE, HubServer
from transforms.errors import BroetchenError, one_line, without_secrets
from transforms.files import hub as hub_files
from transforms.files import storage

CORPUS = "owner/corpus"
# Reads a file with all that there is logged, by handlers of its own, as a program does that calls us.
READ = """
import logging, sys, traceback
logging.basicConfig(level=logging.DEBUG, format="%(name)s %(message)s")
from huggingface_hub import logging as theirs
from transforms.files import storage
theirs.set_verbosity_debug()
try:
    print(len(storage.read_bytes(sys.argv[1])))
except Exception as error:
    traceback.print_exc()
"""


@pytest.fixture
def hub(tmp_path: Path, hf_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.bin").write_bytes(bytes(range(250)) * 2000)
    with HubServer({CORPUS: folder}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


def read(hub: HubServer, *sizes: int) -> list[bytes]:
    with FileSystems.open(hub.source(CORPUS, "a.bin")) as handle:
        return [handle.read(size) for size in sizes]


def test_each_range_is_read_against_the_hubs_etag_and_then_the_stores(hub: HubServer) -> None:
    assert b"".join(read(hub, 100_000, 400_000)) == bytes(range(250)) * 2000
    assert hub.resolved.total() == 1
    hub_files._file.cache_clear()
    hub.left_out = frozenset({"ETag"})  # of the store: then the hub's is looked at each time
    hub.resolved.clear()
    assert b"".join(read(hub, 100_000, 400_000)) == bytes(range(250)) * 2000
    assert hub.resolved.total() == 2


def test_an_answer_without_the_hubs_etag_is_not_taken(hub: HubServer) -> None:
    hub.left_out = frozenset({"X-Linked-ETag"})  # The store's own says nothing of the hub's content.
    with pytest.raises(BroetchenError, match=r"a\.bin: the hub does not say of what content its answer is \(no etag\)"):
        read(hub, 100_000)


def test_an_answer_that_does_not_say_which_range_it_is_is_not_taken(hub: HubServer) -> None:
    hub.left_out = frozenset({"Content-Range"})
    with pytest.raises(
        BroetchenError, match=r"another range \(it does not say which\) than bytes 0-99999; run it again"
    ):
        read(hub, 100_000)


def test_another_range_of_the_same_length_is_not_taken(hub: HubServer) -> None:
    hub.answers_from = 70_000
    with pytest.raises(BroetchenError, match=r"another range \(bytes 70000-169999/500000\) than bytes 0-99999"):
        read(hub, 100_000)


def test_a_range_of_a_store_is_looked_at_as_well(hub: HubServer) -> None:
    with FileSystems.open(hub.source(CORPUS, "a.bin")) as handle:
        handle.read(100_000)
        assert hub.resolved.total() == 1
        hub.left_out = frozenset({"Content-Range"})
        with pytest.raises(BroetchenError, match="it does not say which"):
            handle.read(100_000)
        assert hub.resolved.total() == 1


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.mark.parametrize("known", [False, True], ids=["led there", "a known store"])
@pytest.mark.parametrize("status", [403, 503])
def test_no_log_error_or_traceback_tells_what_signs_an_address(
    hub: HubServer, caplog: pytest.LogCaptureFixture, quick_retries: None, status: int, known: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    with FileSystems.open(hub.source(CORPUS, "a.bin")) as handle:
        if known:
            handle.read(100_000)
        hub.refuses = status
        with pytest.raises(BroetchenError, match=rf"a\.bin: the hub answers HTTP {status}") as error:
            handle.read(100_000)
    # The address is told, and all of it but the query.
    assert f"{hub.store}/store/{CORPUS}/a.bin?…" in caplog.text
    assert SIGNATURE not in caplog.text
    assert SIGNATURE not in "".join(traceback.format_exception(error.value))
    assert not any(SIGNATURE in repr(record.__dict__) for record in caplog.records)


@pytest.mark.parametrize("status", [0, 403])
def test_nor_does_what_a_caller_logs_by_handlers_of_its_own(hub: HubServer, status: int) -> None:
    hub.refuses = status
    done = subprocess.run(
        [sys.executable, "-c", READ, hub.source(CORPUS, "a.bin")], capture_output=True, text=True, check=True
    )
    assert ("500000\n" if not status else "") == done.stdout
    assert f"{hub.store}/store/{CORPUS}/a.bin?…" in done.stderr
    assert "httpcore" in done.stderr  # which logs the headers of answers
    assert SIGNATURE not in done.stderr


def test_an_exception_that_a_client_logs_loses_it_as_well(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError(f"503 for 'https://store.example/a?Signature={SIGNATURE}'")
    except ValueError:
        logging.getLogger("huggingface_hub.utils").exception("of %s", f"https://store.example/b?{SIGNATURE}")
    assert "of https://store.example/b?…" in caplog.text
    assert "ValueError: 503 for 'https://store.example/a?…'" in caplog.text
    assert SIGNATURE not in caplog.text


def test_a_message_that_does_not_fit_is_left_to_logging() -> None:
    record = logging.getLogRecordFactory()("httpx", logging.INFO, "", 1, "%d is no number", ("this",), None)
    assert (record.msg, record.args) == ("%d is no number", ("this",))


def test_what_others_log_is_left_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("somebody.else").warning("see https://example.org/?page=2")
    assert "page=2" in caplog.text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("GET https://a.example/b?c=d&e=f", "GET https://a.example/b?…"),
        ("(b'Location', b'https://a.example/b?c=d'), x", "(b'Location', b'https://a.example/b?…'), x"),
        ("https://me:pass@a.example:443/b#c", "https://a.example:443/b?…"),
        ("HTTPS://a.example?c", "HTTPS://a.example?…"),
        (
            'https://a.example:443 "POST /upload?upload_id=7 HTTP/1.1" 200',
            'https://a.example:443 "POST /upload?… HTTP/1.1" 200',
        ),
        (
            "hf://datasets/a/b@c/d.parquet and gs://a/b-?.parquet",
            "hf://datasets/a/b@c/d.parquet and gs://a/b-?.parquet",
        ),
        ("is it there? GET it", "is it there? GET it"),
    ],
)
def test_queries_and_users_are_cut_from_addresses_of_the_web(text: str, left: str) -> None:
    assert without_secrets(text) == left
    assert without_secrets(left) == left
    assert one_line(text) == left


def test_a_whole_file_is_read_by_its_hash(hub: HubServer) -> None:
    assert storage.read_bytes(hub.source(CORPUS, "a.bin")) == bytes(range(250)) * 2000
