"""`broetchen cluster` as its users see it: its help, its refusals, and its end."""

from __future__ import annotations

import re
import signal
import socket
import time

import pytest

from tests.support.command import run_command, started_command


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_help_warns_of_the_network(command: str) -> None:
    shown = run_command("cluster", command, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"Usage: broetchen cluster {command}" in shown.stdout
    assert "networks that you trust alone" in " ".join(re.sub(r"[│\n]", " ", shown.stdout).split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["worker", "--address=0.0.0.0:8100"], r"--address 0\.0\.0\.0:8100: is every network of this machine"),
        (["worker", "--address=here"], "--address here: not of the form HOST:PORT"),
        (["serve", "--address=127.0.0.1:8099", "--workers=a:1,a:1"], "--workers: a:1 is named twice"),
        (["serve", "--address=127.0.0.1:8099", "--workers="], "--workers: names no host"),
    ],
)
def test_addresses_that_are_none(arguments: list[str], words: str) -> None:
    refused = run_command("cluster", *arguments)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert re.match(f"broetchen: {words}", line)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["serve", "worker"])
def test_it_ends_cleanly(command: str, number: signal.Signals) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = ["--workers=127.0.0.1:9"] if command == "serve" else []
    with started_command("cluster", command, f"--address=127.0.0.1:{port}", *workers) as process:
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(1)  # The handlers are there a moment after the port.
        process.send_signal(number)
        assert process.wait(30) == 0
