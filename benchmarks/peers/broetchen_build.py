"""``broetchen build``, as a user would call it: writes a mix config of one dataset, then becomes the command."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import yaml


def mix_config(corpus: Path, tokenizer: Path, eos_token: str, budget: int, max_tokens: int, shard_size: str) -> str:
    """The YAML of a mix with one dataset, ``corpus``, of exactly ``budget`` tokens."""
    config = {
        "name": "benchmark",
        "tokenizer": {"path": str(tokenizer.resolve()), "eos_token": eos_token},
        "total_tokens": budget,
        "records": {"format": "tokens", "max_tokens": max_tokens, "add_bos": False, "add_eos": True},
        "shards": {"target_size": shard_size, "compression": "zstd", "group_size": 1},
        "datasets": {
            "corpus": {"share": "100%", "source": str(corpus.resolve() / "*.parquet"), "text_column": "text"},
        },
    }
    return yaml.safe_dump(config, sort_keys=False)


def main() -> None:
    """Write the config next to the output and replace this process with the command."""
    parser = argparse.ArgumentParser(description="Run broetchen build on a parquet corpus.")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of parquet files with a text column")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    parser.add_argument("--eos-token", default="<|eos|>")
    parser.add_argument("--max-tokens", type=int, default=2048, help="ids of a record at most")
    parser.add_argument("--budget", type=int, required=True, help="tokens to write, EOS included")
    parser.add_argument("--shard-size", default="16MiB", help="target size of a shard")
    parser.add_argument("--broetchen", type=Path, required=True, help="the command")
    parser.add_argument("--output", type=Path, required=True)
    arguments, more = parser.parse_known_args()
    config = arguments.output.with_suffix(".yaml")
    config.write_text(
        mix_config(
            arguments.corpus,
            arguments.tokenizer,
            arguments.eos_token,
            arguments.budget,
            arguments.max_tokens,
            arguments.shard_size,
        )
    )
    command = [str(arguments.broetchen), "build", str(config), "--output", str(arguments.output), *more]
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
