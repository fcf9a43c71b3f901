"""Addresses of a cluster: which are accepted, and how to listen at one."""

from __future__ import annotations

import socket

import pytest

from beam_pipelines.cluster.addresses import check_address, check_addresses, host_of
from beam_pipelines.cluster.calls import new_server, started_server
from transforms.errors import BroetchenError, UsageError


@pytest.mark.parametrize("text", ["10.0.0.1:8099", "a:1", "build-1.lan:65535", "[fd00::1]:8099", "127.0.0.1:1"])
def test_a_host_and_its_port(text: str) -> None:
    assert check_address("--address", text) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not of the form"),
        ("8099", "not of the form"),
        (":8099", "not of the form"),
        ("a", "not of the form"),
        ("a:", "not of the form"),
        ("a b:1", "not of the form"),
        ("http://a:1", "not of the form"),
        ("unix:/tmp/x:1", "not of the form"),
        ("a:1;b:2", "not of the form"),
        ("fd00::1:8099", "not of the form"),
        ("-a:1", "not of the form"),
        ("a:0", "a port is from 1 to 65535"),
        ("a:65536", "a port is from 1 to 65535"),
        ("0.0.0.0:8099", "is every network of this machine"),
        ("0:8099", "is every network of this machine"),
        ("[::]:8099", "is every network of this machine"),
        ("[0:0::0]:8099", "is every network of this machine"),
    ],
)
def test_what_is_none(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_address("--address", text)


def test_lists() -> None:
    assert check_addresses("--workers", "a:1, b:2,") == ["a:1", "b:2"]
    with pytest.raises(UsageError, match="a:1 is named twice"):
        check_addresses("--workers", "a:1,b:2,a:1")
    with pytest.raises(UsageError, match="names no host"):
        check_addresses("--workers", " , ")
    with pytest.raises(UsageError, match="--workers b: not of the form"):
        check_addresses("--workers", "a:1,b")
    assert host_of("[fd00::1]:8099") == "[fd00::1]"


def test_a_port_that_another_has_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BroetchenError, match=rf"--address {address}: this process cannot listen there"):
            started_server(new_server(), address)
    first = new_server()
    try:
        started_server(first, address)
        with pytest.raises(BroetchenError, match="cannot listen there"):
            started_server(new_server(), address)
    finally:
        first.stop(0)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(BroetchenError, match=r"192\.0\.2\.1:8099: this process cannot listen there"):
        started_server(new_server(), "192.0.2.1:8099")
