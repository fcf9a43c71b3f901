"""The tokenizer that MaxText loads, and the special tokens that it will take from it.

MaxText loads a folder by `transformers.AutoTokenizer` (`HFTokenizer` in `maxtext/input_pipeline/tokenizer.py`, 0.2.5),
which knows BOS, EOS and padding from `tokenizer_config.json` alone. Where the id of a target is that of padding, its
loss does not count (`shift_and_refine` in `maxtext/input_pipeline/input_pipeline_utils.py`); without a padding token
that is the unknown token, and else the id 0 (`get_tokenizer_and_pad_id`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from launch.config.training import TrainingConfig
from launch.mixture.datasets import Mixture
from transforms.encoding.special_strings import special_tokens
from transforms.errors import UsageError
from transforms.files import storage
from transforms.tokenizer.file import load_tokenizer

_FILE = "tokenizer.json"


@dataclass(frozen=True)
class TrainingTokenizer:
    """A tokenizer as MaxText sees it.

    Attributes:
        folder: where it lies, a local path or gs://….
        bos_id, eos_id: None where its tokenizer_config.json names none.
        ignored_id: the id whose targets do not count for the loss.
        ignored_token: that id's token.
        ignored_is_special: whether no text has that token, unless it is written out.
        splits_special_tokens: whether the string of a special token in a text is text to it, and not the token.
        uncounted: tokens that tokenizer_config.json makes special, and tokenizer.json does not: builds do not look for
            their strings.
    """

    folder: str
    bos_id: int | None
    eos_id: int | None
    ignored_id: int
    ignored_token: str
    ignored_is_special: bool
    splits_special_tokens: bool = False
    uncounted: tuple[str, ...] = ()


def find_tokenizer(config: TrainingConfig, mixture: Mixture) -> TrainingTokenizer:
    """The tokenizer of a config: the one it names, or that of its datasets.

    Raises:
        UsageError: it is not there, is not called tokenizer.json, or is not the one that the datasets were built with.
    """
    with config.blamed("data" if config.tokenizer is None else "tokenizer"):
        return _find(config.tokenizer_folder() or mixture.tokenizer, mixture)


def _find(path: str, mixture: Mixture) -> TrainingTokenizer:
    loaded = load_tokenizer(path)
    folder, name = storage.split(path) if path.endswith((".json", ".gz")) else (path, _FILE)
    if name != _FILE or not storage.exists(storage.join(folder, _FILE)):
        raise UsageError(
            f"{path}: MaxText loads a folder with a {_FILE} in it; unpack or rename it, and name its folder"
        )
    if loaded.sha256 != mixture.tokenizer_sha256:
        raise UsageError(
            f"{path} is not the tokenizer that the datasets were built with (its sha256 is {loaded.sha256[:12]}…, "
            f"theirs {mixture.tokenizer_sha256[:12]}…); name a copy of {mixture.tokenizer}, or leave the key out"
        )
    settings = json.loads(loaded.config_json or "{}")
    tokenizer = Tokenizer.from_str(loaded.json)
    named = [_content(settings.get(key)) for key in ("pad_token", "unk_token")]
    ids = [tokenizer.token_to_id(token) for token in named if token is not None]
    ignored = next((token_id for token_id in ids if token_id is not None), 0)
    special = {token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return TrainingTokenizer(
        folder=folder,
        bos_id=loaded.bos_id,
        eos_id=loaded.eos_id,
        ignored_id=ignored,
        ignored_token=tokenizer.id_to_token(ignored) or "",
        ignored_is_special=ignored in special,
        splits_special_tokens=settings.get("split_special_tokens") is True,
        uncounted=_uncounted(settings, json.loads(loaded.json)),
    )


def _uncounted(settings: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> tuple[str, ...]:
    """Strings that transformers (`TokenizersBackend`, 5.24) makes tokens of beside those special in tokenizer.json."""
    special = {token["content"] for token in special_tokens(tokenizer)}
    # Added tokens that are not special are tokens wherever text is encoded, by a build as well.
    added = {token["content"] for token in tokenizer.get("added_tokens") or []}
    decoder = settings.get("added_tokens_decoder")
    entries = list(decoder.values()) if isinstance(decoder, Mapping) else []
    named = [value for key, value in settings.items() if key.endswith("_token")]
    named += [entry for entry in entries if isinstance(entry, Mapping) and entry.get("special") is True]
    others = [*entries]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        several = settings.get(key)
        others += several.values() if isinstance(several, Mapping) else several if isinstance(several, list) else []
    found = [name for name in map(_content, named) if name and name not in special]
    found += [name for name in map(_content, others) if name and name not in added]
    return tuple(dict.fromkeys(found))


def _content(token: object) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
