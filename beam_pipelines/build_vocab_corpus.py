"""The corpus to train a tokenizer on: the main job, with text for its output.

    python -m beam_pipelines.build_vocab_corpus --config CONFIG --output URI [Beam options]

Each dataset is cut to its exact budget, counted by the config's tokenizer: encoding what was written gives exactly
that many tokens. It is the same build as any other; only its shards hold text.
"""

from __future__ import annotations

from typing import Literal

Container = Literal["parquet", "arrayrecord"]


def text_settings(container: Container) -> list[str]:
    """What makes a text build of any config, as settings KEY=VALUE."""
    written = "parquet" if container == "parquet" else "text"
    return [f"records.format={written}", "records.add_bos=false", "records.add_eos=false"]


if __name__ == "__main__":
    from beam_pipelines.cli import module_main

    module_main("vocab", "--config")
