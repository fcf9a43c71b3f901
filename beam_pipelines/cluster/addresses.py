"""Addresses of a cluster, `HOST:PORT`: which are accepted, and how to listen at one."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from transforms.errors import BroetchenError, UsageError

_ADDRESS = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)):(?P<port>\d+)"
)
_EXAMPLE = "10.0.0.1:8099"


def check_address(option: str, text: str) -> str:
    """The address as it was given.

    Raises:
        UsageError: it is none, or that of every network of a machine.

    >>> check_address("--address", "build-1.lan:8099")
    'build-1.lan:8099'
    """
    found = _ADDRESS.fullmatch(text)
    if not found:
        raise UsageError(f"{option} {text}: not of the form HOST:PORT, such as {_EXAMPLE}")
    if not 0 < int(found["port"]) < 1 << 16:
        raise UsageError(f"{option} {text}: a port is from 1 to 65535")
    if _is_every(found["v6"] or found["host"]):
        raise UsageError(
            f"{option} {text}: is every network of this machine; name the address by which the other hosts reach it"
        )
    return text


def check_addresses(option: str, text: str) -> list[str]:
    """The addresses of a list with commas.

    Raises:
        UsageError: one is none, or there twice.
    """
    addresses = [check_address(option, part.strip()) for part in text.split(",") if part.strip()]
    if not addresses:
        raise UsageError(f"{option}: names no host; give HOST:PORT for each, with commas, such as {_EXAMPLE}")
    if twice := sorted({address for address in addresses if addresses.count(address) > 1}):
        raise UsageError(f"{option}: {twice[0]} is named twice; --processes of its worker says how many it runs")
    return addresses


def host_of(address: str) -> str:
    """The host of an address, as it stands before a port.

    >>> host_of("[fd00::1]:80"), host_of("a.lan:80")
    ('[fd00::1]', 'a.lan')
    """
    return address.rpartition(":")[0]


def listen_at(server: Any, option: str, address: str) -> None:
    """Has a server of gRPC listen at an address, and nowhere else.

    Raises:
        BroetchenError: it cannot.
    """
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise BroetchenError(
            f"{option} {address}: this process cannot listen there; check that the address is one of this machine's "
            "and that nothing else has the port"
        )


def _is_every(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return bool(re.fullmatch(r"0+(\.0+)*", host))
