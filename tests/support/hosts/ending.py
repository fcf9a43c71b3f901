"""A process that does nothing, and ends with the one that has started it."""

from __future__ import annotations

import sys
import time

from beam_pipelines.cluster.family import end_with

if __name__ == "__main__":
    end_with(sys.stdin.buffer)
    time.sleep(600)
