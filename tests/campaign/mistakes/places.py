"""Places where commands fail: full disks, folders that cannot be written, and networks that lead nowhere.

Each is a shell line that is run as root in namespaces of its own (namespaces(7)), of which nothing is left afterwards.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Literal

Place = Literal["here", "full disk", "read-only", "no network", "lost packets"]

_LOST = (
    "ip link set lo up && ip link add nowhere type veth peer name nobody && ip address add 192.0.2.1/24 dev nowhere && "
    "ip link set nowhere up && ip link set nobody up && ip route add default via 192.0.2.2 && "
    "ip neighbour add 192.0.2.2 lladdr 02:00:00:00:00:01 dev nowhere nud permanent"
)
# Of what a case finds in its folder, `disk` is the mount.
_SETUPS: Mapping[Place, tuple[str, str]] = {
    "full disk": ("--mount", 'mount -t tmpfs -o size=256k disk "$DISK"'),
    "read-only": ("--mount", 'mount -t tmpfs -o ro disk "$DISK"'),
    "no network": ("--net", "true"),
    # All packets are lost, those that ask for names as well.
    "lost packets": (
        "--net --mount",
        _LOST + ' && echo nameserver 192.0.2.3 > "$DISK/names" && mount --bind "$DISK/names" /etc/resolv.conf',
    ),
}


def placed(command: Sequence[str], place: Place, disk: str) -> list[str]:
    """A command as it is run at a place.

    Args:
        command: the program and its arguments.
        disk: a folder that is there, and is the disk that is full or read-only.
    """
    if place not in _SETUPS:
        return list(command)
    namespaces, setup = _SETUPS[place]
    return ["env", f"DISK={disk}", "unshare", *namespaces.split(), "sh", "-c", f'{setup} && exec "$@"', "sh", *command]


def why_not(place: Place) -> str:
    """Why there is no such place here; empty where there is."""
    if place not in _SETUPS:
        return ""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("ip") is None:
        return "needs root, unshare and ip"
    probe = subprocess.run(placed(["true"], place, "/mnt"), capture_output=True, text=True, timeout=60)
    return f"cannot be made here ({probe.stderr.strip()})" if probe.returncode else ""
