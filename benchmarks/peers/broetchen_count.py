"""``broetchen count``, as a user would call it, on parquet files; becomes the command."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def main() -> None:
    """Replace this process with the command, which writes its table as JSON."""
    parser = argparse.ArgumentParser(description="Count the tokens of a parquet corpus with broetchen count.")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of parquet files with a text column")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    parser.add_argument("--broetchen", type=Path, required=True, help="the command")
    parser.add_argument("--stats", type=Path, required=True, help="JSON file for the counts")
    arguments, more = parser.parse_known_args()
    command = [str(arguments.broetchen), "count", str(arguments.corpus / "*.parquet")]
    command += [f"--tokenizer={arguments.tokenizer}", "--format=json", f"--output={arguments.stats}", *more]
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
