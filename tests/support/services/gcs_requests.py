"""The requests that this process sends to Google Cloud Storage, and acts of others right before one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from google.auth.transport.requests import AuthorizedSession

_KINDS = {"GET": "look", "PATCH": "patch", "DELETE": "delete"}


@dataclasses.dataclass(frozen=True)
class Sent:
    """A request, and the status of its answer.

    Attributes:
        what: "look" or "read" for what the store knows of the object or holds, or else "write", "copy", "patch" or
            "delete".
        name: of the object, of a copy its source's; "" where the request is about the bucket.
        asked: the parameters.
        changes: of a patch.
        timeout: seconds for which an answer is waited for.
        status: 0 where there was no answer.
    """

    what: str
    name: str
    asked: dict[str, str]
    changes: dict[str, Any]
    timeout: Any
    status: int


class Requests:
    """The requests of this process to the store; the fixture `gcs_requests` makes it."""

    def __init__(self) -> None:
        self._sent: list[Sent] = []
        self._acts: list[tuple[str, Callable[[], requests.Response | None]]] = []
        self._others = threading.local()
        self._changed = threading.Condition()

    def of(self, path: str) -> list[Sent]:
        """The requests about one object, ``gs://…``, in the order of their answers."""
        name = path.removeprefix("gs://").partition("/")[2]
        return [one for one in self._sent if one.name == name]

    def kinds(self, path: str) -> list[str]:
        """The kinds of the requests about one object, in the order of their answers."""
        return [one.what for one in self.of(path)]

    def before(self, what: str, act: Callable[[], requests.Response | None]) -> None:
        """Has somebody act right before the next request of a kind about an object.

        The answer is a response that `act` returns, or the exception that it raises; None lets the store answer.
        """
        self._acts.append((what, act))

    @contextlib.contextmanager
    def of_others(self) -> Iterator[None]:
        """Counts the requests of this thread during the block as those of another process."""
        self._others.ask = True
        try:
            yield
        finally:
            self._others.ask = False

    def wait(self, path: str, count: int, *, what: str, status: int = 200) -> None:
        """Until so many requests of a kind about one object have been answered with `status`."""

        def enough() -> bool:
            return sum(one.what == what and one.status == status for one in self.of(path)) >= count

        with self._changed:
            assert self._changed.wait_for(enough, 10), f"so far {self.of(path)}"

    def send(
        self, really: Callable[[], requests.Response], method: str, url: str, data: Any, timeout: Any
    ) -> requests.Response:
        """Sends a request, after the act of somebody before it."""
        if getattr(self._others, "ask", False):
            return really()
        what, name = _kind(method, url, data)
        status = 0
        try:
            answer = self._act(what) if name else None
            if answer is None:
                answer = really()
            status = answer.status_code
        finally:
            asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
            sent = Sent(what, name, asked, json.loads(data) if what == "patch" else {}, timeout, status)
            with self._changed:
                self._sent.append(sent)
                self._changed.notify_all()
        return answer

    def _act(self, what: str) -> requests.Response | None:
        found = next((one for one in self._acts if one[0] == what), None)
        if found is None:
            return None
        self._acts.remove(found)
        with self.of_others():
            return found[1]()


def answer(status: int) -> requests.Response:
    """An answer without a body."""
    response = requests.Response()
    response.status_code = status
    response._content = b""
    response.request = requests.Request("GET", "http://store").prepare()
    return response


def _kind(method: str, url: str, data: Any) -> tuple[str, str]:
    path, query = urllib.parse.urlsplit(url)[2:4]
    name = urllib.parse.unquote(path.partition("/o/")[2].partition("/copyTo/")[0])
    if "/upload/" in path and not name:
        # The first part of an upload in one request, or all of the first request of another.
        described = data.split(b"\r\n\r\n", 2)[1] if data.startswith(b"--") else data
        return "write", json.loads(described.partition(b"\r\n")[0])["name"]
    if "/copyTo/" in path:
        return "copy", name
    return "read" if "alt=media" in query else _KINDS[method], name


@pytest.fixture
def gcs_requests(monkeypatch: pytest.MonkeyPatch) -> Requests:
    """Every request of this process to the store; others may act in between."""
    seen, real = Requests(), AuthorizedSession.request

    def request(session: AuthorizedSession, method: str, url: str, data: Any = None, **others: Any) -> Any:
        def really() -> Any:
            return real(session, method, url, data=data, **others)

        return seen.send(really, method, url, data, others.get("timeout"))

    monkeypatch.setattr(AuthorizedSession, "request", request)
    return seen
