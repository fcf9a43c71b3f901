"""Byte-level tokenizers of a few hundred tokens, made on the spot, as dictionaries of tokenizer.json's shape."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from transforms.tokenizer.file import TokenizerFile

GPT2: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}

# The pattern that tiktoken has for cl100k nowadays. Other regular expressions than tiktoken's read it differently.
POSSESSIVE = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|"
    r"\s*[\r\n]|\s+(?!\S)|\s+"
)


def split_then_bytes(*patterns: str, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    """A pre-tokenizer that splits by regular expressions, as those after GPT-2 do."""
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert} for pattern in patterns
    ]
    return {"type": "Sequence", "pretokenizers": [*splits, {**GPT2, "use_regex": False}]}


def added_token(token_id: int, content: str, **flags: bool) -> dict[str, Any]:
    """An entry of `added_tokens`; special unless told otherwise."""
    no_flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": content, **no_flags, **flags}


def byte_characters() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    codes = dict(zip(shown, shown, strict=True)) | {byte: 256 + i for i, byte in enumerate(hidden)}
    return [chr(codes[byte]) for byte in range(256)]


def byte_level(
    merges: Iterable[tuple[bytes, bytes]] = (),
    *,
    pre_tokenizer: dict[str, Any] | None = GPT2,
    normalizer: dict[str, Any] | None = None,
    added_tokens: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """A tokenizer of all 256 bytes, with the byte's value as its id, and of merges, which get the ids after them."""
    characters = byte_characters()
    vocabulary = {character: byte for byte, character in enumerate(characters)}
    pairs = []
    for merge in merges:
        pair = ["".join(characters[byte] for byte in part) for part in merge]
        pairs.append(pair)
        vocabulary.setdefault("".join(pair), len(vocabulary))
    model = {"type": "BPE", "vocab": vocabulary, "merges": pairs}
    return {
        "version": "1.0",
        "added_tokens": list(added_tokens),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "model": model,
    }


BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
_TO_MARKS = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
_METASPACE = {"type": "Metaspace", "replacement": "▁"}
SENTENCEPIECE_FORMS: dict[str, tuple[dict[str, Any] | None, dict[str, Any] | None]] = {
    "Llama-2": ({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, _TO_MARKS]}, None),
    "Yi": ({"type": "Sequence", "normalizers": [_TO_MARKS]}, None),
    "Gemma": (_TO_MARKS, None),
    "Gemma 2": (
        _TO_MARKS,
        {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
    ),
    "Metaspace": (None, {**_METASPACE, "prepend_scheme": "always"}),
    "Metaspace, unsplit": (None, {**_METASPACE, "prepend_scheme": "always", "split": False}),
    "Metaspace, first": (None, {**_METASPACE, "prepend_scheme": "first", "split": True}),
    "Metaspace, first, unsplit": (None, {**_METASPACE, "prepend_scheme": "first", "split": False}),
    "Metaspace, never": (
        None,
        {"type": "Sequence", "pretokenizers": [{**_METASPACE, "prepend_scheme": "never", "split": True}]},
    ),
    "Metaspace, never, unsplit": (None, {**_METASPACE, "prepend_scheme": "never", "split": False}),
}
"""Normalizer and pre-tokenizer of tokenizers in SentencePiece's manner."""


def sentencepiece_like(
    merges: Iterable[tuple[str, str]] = (),
    *,
    characters: str = "▁abcdefghijklmnopqrstuvwxyz.,\n",
    more: Iterable[str] = (),
    form: str = "Llama-2",
    added_tokens: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """A tokenizer of characters, bytes for all others, merges, and tokens that no merge makes."""
    pairs = list(merges)
    made = ("".join(pair) for pair in pairs)
    tokens = dict.fromkeys(["<unk>", "<s>", "</s>", *BYTE_TOKENS, *characters, *made, *more])
    normalizer, pre_tokenizer = SENTENCEPIECE_FORMS[form]
    return {
        "version": "1.0",
        "added_tokens": list(added_tokens),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [list(pair) for pair in pairs],
        },
    }


def train(texts: Iterable[str], pre_tokenizer: dict[str, Any], *, size: int = 1500) -> dict[str, Any]:
    """A tokenizer trained on texts."""
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(byte_level(pre_tokenizer=pre_tokenizer)))
    tokenizer.model = models.BPE()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    trained: dict[str, Any] = json.loads(tokenizer.to_str())
    return trained


def as_file(tokenizer: dict[str, Any]) -> TokenizerFile:
    """The tokenizer as if it had been read from a file."""
    text = json.dumps(tokenizer)
    vocab_size = max(tokenizers.Tokenizer.from_str(text).get_vocab().values()) + 1
    return TokenizerFile(text, hashlib.sha256(text.encode()).hexdigest(), None, None, None, None, vocab_size, None)
