"""The facts about a tokenizer's vocabulary for an evaluation."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable

from tokenizers import Tokenizer

from transforms.encoding.splits import byte_characters
from transforms.tokenizer.file import TokenizerFile


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A vocabulary's size, and the ids that stand for less than text.

    Attributes:
        size: of all entries, special and unused ones included: the rows of an embedding matrix.
        unknown_ids: ids that stand for text which the vocabulary cannot express.
        byte_ids: ids that stand for one byte of a character: SentencePiece's byte pieces (`<0x0A>`), and in byte-level
            vocabularies the single bytes from 0x80, which are no characters of their own.
    """

    size: int
    unknown_ids: tuple[int, ...] = ()
    byte_ids: tuple[int, ...] = ()


def vocabulary_of(tokenizer: TokenizerFile) -> Vocabulary:
    """The vocabulary of a `tokenizer.json`."""
    whole = json.loads(tokenizer.json)
    model = whole["model"]
    entries = Tokenizer.from_str(tokenizer.json).get_vocab(with_added_tokens=True)
    unknown = {model.get("unk_id"), entries.get(model.get("unk_token") or "")} - {None}
    byte_names: Iterable[str] = ()
    if model.get("byte_fallback"):
        byte_names = [f"<0x{byte:02X}>" for byte in range(256)]
    elif any('"ByteLevel"' in json.dumps(whole.get(part)) for part in ("pre_tokenizer", "normalizer")):
        byte_names = byte_characters()[0x80:]
    return Vocabulary(
        tokenizer.vocab_size,
        unknown_ids=tuple(sorted(unknown)),
        byte_ids=tuple(sorted(entries[name] for name in byte_names if name in entries)),
    )
