"""The folder of a trained tokenizer: files that transformers and MaxText load, and a manifest."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from transforms.bpe.styles import BOS_TOKEN, PAD_TOKEN
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage

TOKENIZER = "tokenizer.json"
_CONFIG, _SPECIAL_TOKENS_MAP, _MANIFEST = "tokenizer_config.json", "special_tokens_map.json", "manifest.json"
# The limit that transformers writes for a tokenizer that sets none.
_NO_LIMIT = int(1e30)


def check_output(output: str, *, overwrite: bool) -> None:
    """Checks that a folder can take a tokenizer, before anything takes time.

    Raises:
        UsageError: there is a tokenizer already, and it is not to be replaced.
        BroetchenError: nothing can be written there.
    """
    names = (TOKENIZER, _CONFIG, _SPECIAL_TOKENS_MAP, _MANIFEST)
    there = [name for name in names if storage.exists(storage.join(output, name))]
    if there and not overwrite:
        raise UsageError(
            f"{storage.join(output, there[0])}: is there already; choose another folder, or add --overwrite"
        )
    probe = storage.temporary_path(storage.join(output, TOKENIZER))
    storage.write_bytes(probe, b"")
    storage.delete([probe])


def tokenizer_files(
    tokenizer: str, eos_token: str, special: Sequence[str], manifest: Mapping[str, Any]
) -> dict[str, bytes]:
    """The files of a tokenizer's folder by their names, as transformers reads them; the manifest comes last.

    Args:
        tokenizer: `tokenizer.json`.
        eos_token: the name of the EOS token.
        special: the names of all special tokens.
        manifest: as plain JSON types.
    """
    tokens = {
        "bos_token": BOS_TOKEN,
        "eos_token": eos_token,
        "pad_token": PAD_TOKEN,
        "additional_special_tokens": [token for token in special if token not in (BOS_TOKEN, eos_token, PAD_TOKEN)],
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **tokens,
        "clean_up_tokenization_spaces": False,
        "model_max_length": _NO_LIMIT,
    }
    return {
        _CONFIG: _as_json(config),
        _SPECIAL_TOKENS_MAP: _as_json(tokens),
        TOKENIZER: tokenizer.encode(),
        _MANIFEST: _as_json(manifest),
    }


def write_files(output: str, contents: Mapping[str, bytes]) -> None:
    """Writes all files of a folder, by their names and in their order; if one cannot be written, none is left.

    Raises:
        BroetchenError: one cannot be written.
    """
    paths = {storage.join(output, name): content for name, content in contents.items()}
    try:
        storage.delete([storage.join(output, _MANIFEST)])
        for path, content in paths.items():
            storage.write_bytes(path, content)
    except BaseException:
        with contextlib.suppress(BroetchenError):
            storage.delete(reversed(paths))
        raise


def _as_json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
