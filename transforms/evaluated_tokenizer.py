"""Tokenizers under evaluation, as workers find and encode with them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import Literal

from transforms import files
from transforms.encoder_pool import borrow_encoder
from transforms.encoders import Encoder
from transforms.foreign_encoders import FOREIGN_ENCODERS, ForeignKind
from transforms.tokenizer_spec import ChosenEngine, TokenizerSpec
from transforms.vocabulary import Vocabulary

Kind = Literal["tokenizers"] | ForeignKind
"""The library that reads a file, and defines what its tokenizer gives."""


@dataclasses.dataclass(frozen=True)
class EvaluatedTokenizer:
    """A tokenizer as workers find it.

    Attributes:
        name: in the results.
        source: where it is from, as it was given.
        kind: the library that defines what it gives.
        engine: what encodes; it gives the same ids.
        file: a copy that every worker can read.
        sha256: of its content.
        vocabulary: its size, and the ids of its unknown tokens and single bytes.
    """

    name: str
    source: str
    kind: Kind
    engine: ChosenEngine | ForeignKind
    file: str = dataclasses.field(compare=False)
    sha256: str
    vocabulary: Vocabulary = dataclasses.field(compare=False)

    def lend(self) -> contextlib.AbstractContextManager[Encoder]:
        """Its encoder, for one thread at a time."""
        if self.engine == "tokenizers" or self.engine == "gigatoken":
            return borrow_encoder(plain_text_spec(self.file, self.sha256), self.engine)
        return contextlib.nullcontext(_foreign_encoder(self))


def plain_text_spec(path: str, sha256: str) -> TokenizerSpec:
    """A `tokenizer.json` as it is evaluated: without BOS and EOS, special tokens in a text being plain text."""
    return TokenizerSpec(path=path, sha256=sha256, bos_token=None, eos_token=None, special_tokens="text")


@functools.cache
def _foreign_encoder(tokenizer: EvaluatedTokenizer) -> Encoder:
    return FOREIGN_ENCODERS[tokenizer.kind](files.read_bytes(tokenizer.file))
