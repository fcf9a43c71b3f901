"""An HTTP proxy on loopback that spoils a part of the requests: 429, 503, a reset connection, a body that is cut.

Which requests, and how, depends on the seed and on the number of the request alone.
"""

from __future__ import annotations

import contextlib
import enum
import http.client
import http.server
import itertools
import random
import socket
import struct
import threading
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus

_HOP_BY_HOP = frozenset({"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"})


class Fault(enum.Enum):
    """The ways to spoil the answer to a request."""

    TOO_MANY_REQUESTS = "429"
    UNAVAILABLE = "503"
    RESET = "reset"
    CUT = "cut"


class FaultProxy(http.server.ThreadingHTTPServer):
    """A proxy in front of the server at `upstream`, ``http://host:port``.

    A reset comes before the server sees the request; a cut ends the answer after half of its body, or, where it has
    none, passes it on. `faults` counts the faults, and `requests` all requests.
    """

    daemon_threads = True

    def __init__(self, upstream: str, *, seed: int, rate: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urllib.parse.urlsplit(upstream).netloc
        self.faults: Counter[Fault] = Counter()
        self.requests = 0
        self._seed, self._rate = seed, rate
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """``http://host:port`` of the proxy."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def draw(self) -> Fault | None:
        """The fault of the next request; None where it gets its proper answer."""
        with self._lock:
            self.requests += 1
            chance = random.Random(f"{self._seed}:{next(self._numbers)}")
        return chance.choice(list(Fault)) if chance.random() < self._rate else None

    def count(self, fault: Fault) -> None:
        """Notes a fault that was done."""
        with self._lock:
            self.faults[fault] += 1


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def _answer(self) -> None:
        fault = self.server.draw()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault is Fault.RESET:
            self.server.count(fault)
            # Closing with a linger of zero sends RST rather than FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif fault in (Fault.TOO_MANY_REQUESTS, Fault.UNAVAILABLE):
            self.server.count(fault)
            self.send_response(HTTPStatus(int(fault.value)))
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._forward(body, cut=fault is Fault.CUT)

    def _forward(self, body: bytes, *, cut: bool) -> None:
        with contextlib.closing(http.client.HTTPConnection(self.server.upstream)) as upstream:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            upstream.request(self.command, self.path, body, headers)
            response = upstream.getresponse()
            content = response.read()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if cut and content:
            self.server.count(Fault.CUT)
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the faults are counted, and a log of them would hide the output of a test."""

    def handle(self) -> None:
        # Clients hang up on answers that were cut.
        with contextlib.suppress(ConnectionError, ValueError):
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()


@contextlib.contextmanager
def fault_proxy(upstream: str, *, seed: int, rate: float = 0.1) -> Iterator[FaultProxy]:
    """A `FaultProxy` that answers until the end of the block."""
    with FaultProxy(upstream, seed=seed, rate=rate) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
