"""The machine and the versions that a measurement was made with."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

OURS = ("broetchen", "apache-beam", "array-record", "gigatoken", "maxtext", "protobuf", "pyarrow", "tokenizers")
DATATROVES = ("datatrove", "pyarrow", "tokenizers")
_PRINT_VERSIONS = """
import json, sys
from importlib.metadata import version
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


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


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # ours, where it runs from its folder without being installed
    return versions


def versions(datatrove_python: Path | None) -> dict[str, str]:
    """Versions of the libraries that do the work, and of those in DataTrove's environment."""
    found = _versions(OURS)
    if datatrove_python is not None:
        command = [str(datatrove_python), "-c", _PRINT_VERSIONS, *DATATROVES]
        answer = subprocess.run(command, capture_output=True, check=True)
        theirs = json.loads(answer.stdout)
        found["datatrove"] = theirs.pop("datatrove")
        found |= {f"datatrove's {name}": version for name, version in theirs.items()}
    return found
