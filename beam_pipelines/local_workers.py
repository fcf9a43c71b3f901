"""How many processes a local run takes where its options do not say."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import psutil

# Worker processes take some five seconds to start. One process encodes about ten million tokens a second, so that more
# of them pay from here on.
_TOKENS_WORTH_PROCESSES = 100_000_000
_MEMORY_PER_WORKER = 1 << 30


def local_workers(arguments: Sequence[str], tokens: int) -> list[str]:
    """Beam's options for as many worker processes as there are processors and memory for, where they are worth it.

    Args:
        arguments: Beam's options as given. Any that names a runner or the local runner's workers is the last word.
        tokens: what is to be encoded.
    """
    if any(argument.startswith(("--direct_", "--runner")) for argument in arguments):
        return []
    if " " in sys.executable:
        return []  # Beam starts its workers by a command line in which it does not quote the path.
    workers = min(os.cpu_count() or 1, psutil.virtual_memory().available // _MEMORY_PER_WORKER)
    if tokens < _TOKENS_WORTH_PROCESSES or workers < 2:
        return []
    return ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
