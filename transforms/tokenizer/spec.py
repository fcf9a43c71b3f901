"""Which tokenizer encodes, by which engine, as every step that encodes needs to know it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from transforms.files.hub_path import REPOSITORY

Engine = Literal["auto", "tokenizers", "gigatoken"]
ChosenEngine = Literal["tokenizers", "gigatoken"]
SpecialTokens = Literal["text", "token"]


def is_hub_id(path: str) -> bool:
    """Whether a tokenizer's path names a repository of the hub, by its form alone.

    >>> [path for path in ("gpt2", "owner/name", "./gpt2", "tokenizer.json.gz") if is_hub_id(path)]
    ['gpt2', 'owner/name']
    """
    return bool(REPOSITORY.fullmatch(path)) and not path.endswith((".json", ".gz"))


@dataclasses.dataclass(frozen=True)
class TokenizerSpec:
    """A tokenizer that every worker can load, and the hash that tells whether it is the right one.

    Two with the same hash are equal, wherever they lie, and share their encoders.
    """

    path: str = dataclasses.field(compare=False)
    sha256: str
    bos_token: str | None
    eos_token: str | None
    special_tokens: SpecialTokens
