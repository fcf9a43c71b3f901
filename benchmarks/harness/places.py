"""Where the benchmarks find the project and keep what they make, and how they warm up."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = Path(__file__).parents[1] / ".cache"
"""Corpora, outputs and results; git ignores it."""
PEERS = Path(__file__).parents[1] / "peers"
"""Programs that are measured beside the command."""
WARM_UP_MB = 1
