"""The places where the benchmarks find the project and keep their files, and the warm-up."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = Path(__file__).parents[1] / ".cache"
"""Corpora, outputs and results; git ignores it."""
PEERS = Path(__file__).parents[1] / "peers"
"""Programs that are measured beside the command."""
WARM_UP_MB = 1


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """Adds options for the places of the samples and of the command, and the folder for files."""
    parser.add_argument("--samples", type=Path, default=ROOT / "samples" / "corpora", help="sources of the corpus")
    parser.add_argument("--broetchen", type=Path, default=Path(sys.executable).with_name("broetchen"))
    parser.add_argument("--cache", type=Path, default=CACHE, help="corpora, tokenizers, outputs and results")


def check_broetchen(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends with an error of the command line if there is no command."""
    if not arguments.broetchen.exists():
        parser.error(f"no {arguments.broetchen}; run make bench, or name the command with --broetchen")
