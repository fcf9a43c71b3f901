"""The settings that make a text corpus of any mix, which `broetchen vocab` builds to train a tokenizer on.

Each dataset is cut to its exact budget, counted by the config's tokenizer: encoding the written text gives exactly that
many tokens. It is the same build as any other; only its shards hold text.
"""

from __future__ import annotations

from typing import Literal

Container = Literal["parquet", "arrayrecord"]


def text_settings(container: Container) -> list[str]:
    """Overrides of a mix config, each `KEY=VALUE`.

    >>> text_settings("parquet")
    ['records.format=parquet', 'records.add_bos=false', 'records.add_eos=false']
    """
    written = "parquet" if container == "parquet" else "text"
    return [f"records.format={written}", "records.add_bos=false", "records.add_eos=false"]
