"""The meter on commands of known use: seconds of a processor, memory, scratch and bytes on the network."""

from __future__ import annotations

import http.server
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.day_in_the_life.meter import measure_on
from tests.support.hosts.network import Network, network, why_none

_REASON = why_none()
pytestmark = pytest.mark.skipif(bool(_REASON), reason=_REASON)

_BYTES = 30_000_000
# Two processes, of which the child is the busy one; the command waits for it.
_BUSY = """
import subprocess, sys, time, urllib.request
busy = "import time\\nwhile time.process_time() < 1.5: pass"
subprocess.run([sys.executable, "-c", busy], check=True)
held = urllib.request.urlopen(sys.argv[1]).read()
open("/tmp/scratch", "wb").write(bytes(20_000_000))
time.sleep(1.5)
"""


@pytest.fixture
def hosts() -> Iterator[Network]:
    with network() as made:
        yield made


def test_what_a_command_uses(hosts: Network, tmp_path: Path) -> None:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bytes(_BYTES))

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    first, second = hosts.host("first"), hosts.host("second")
    with http.server.HTTPServer((hosts.address, 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://{hosts.address}:{server.server_address[1]}/"
        command = [sys.executable, "-c", _BUSY, address]
        code, use = measure_on([first, second], lambda: first.start(command, tmp_path / "log"), 60)
        server.shutdown()
        thread.join()
    assert code == 0, (tmp_path / "log").read_text()
    busy, idle = use.hosts
    assert 1.5 <= busy.cpu_seconds < 4
    assert use.seconds > 3
    # With headers, acknowledgements the other way, and no more.
    assert _BYTES < busy.received_bytes < 1.1 * _BYTES
    assert 0 < busy.sent_bytes < 0.1 * _BYTES
    assert _BYTES < busy.peak_rss_bytes < 10 * _BYTES
    assert 20_000_000 <= busy.peak_scratch_bytes < 30_000_000
    assert idle.cpu_seconds == 0
    assert max(idle.received_bytes, idle.sent_bytes) < 100_000
    assert idle.peak_rss_bytes == 0


def test_a_command_that_fails_is_told_by_its_code(hosts: Network, tmp_path: Path) -> None:
    host = hosts.host("first")
    code, _ = measure_on([host], lambda: host.start(["sh", "-c", "exit 3"], tmp_path / "log"), 60)
    assert code == 3
