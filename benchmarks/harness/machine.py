"""The machine and the versions that a measurement was made with."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

PACKAGES = (
    "broetchen",
    "apache-beam",
    "array-record",
    "datatrove",
    "gigatoken",
    "maxtext",
    "protobuf",
    "pyarrow",
    "tokenizers",
)


def machine() -> dict[str, Any]:
    """CPU model, usable cores, memory in GiB, system, Python, and the load average of the last minute."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {
        "cpu": cpu,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": psutil.virtual_memory().total / (1 << 30),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def machine_at_rest(console: Console) -> dict[str, Any]:
    """The machine, with a warning if it has other work, so that all times are too long."""
    described = machine()
    if (load := described["load_before"]) > 0.5 * described["cpus"]:
        console.print(f"[yellow]load average {load:.1f}: other work is running, so the times are too long")
    return described


def versions() -> dict[str, str]:
    """Versions of the libraries that do the work."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # ours, where it runs from its folder without being installed
    return found
