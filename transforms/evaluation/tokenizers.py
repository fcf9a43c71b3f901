"""Tokenizers that a user names for an evaluation, found, loaded and checked, and those in MaxText's package.

Three kinds of files are read: a `tokenizer.json` of the library `tokenizers`, the ranks of `tiktoken`, and
SentencePiece's models. MaxText comes with some of each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from transforms.encoding.encoders import Encoder
from transforms.encoding.pool import borrow_encoder
from transforms.errors import BroetchenError, UsageError
from transforms.evaluation.foreign import FOREIGN_ENCODERS, ForeignKind, foreign_kind
from transforms.evaluation.vocabulary import Vocabulary, vocabulary_of
from transforms.files import storage
from transforms.files.hub_path import REPOSITORY
from transforms.tokenizer.file import TokenizerFile, load_tokenizer
from transforms.tokenizer.spec import ChosenEngine, TokenizerSpec

_LOGGER = logging.getLogger(__name__)


TokenizerKind = Literal["tokenizers"] | ForeignKind
"""The library that reads a file, and defines the ids of its tokenizer."""


@dataclasses.dataclass(frozen=True)
class EvaluatedTokenizer:
    """A tokenizer as workers find it.

    Attributes:
        name: in the results.
        source: where it is from, as it was given.
        kind: the library that defines what it gives.
        engine: the encoder; it gives the same ids.
        file: a copy that every worker can read.
        sha256: of its content.
        vocabulary: its size, and the ids of its unknown tokens and single bytes.
    """

    name: str
    source: str
    kind: TokenizerKind
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
    return FOREIGN_ENCODERS[tokenizer.kind](storage.read_bytes(tokenizer.file))


_NAME = re.compile(r"([A-Za-z0-9][\w.-]*)=(.*)", re.ASCII | re.DOTALL)
_HUB_REVISION = re.compile(rf"({REPOSITORY.pattern})@(.+)")

_MAXTEXT_ASSETS = "assets/tokenizers"
PUBLIC_TOKENIZERS: Mapping[str, str] = {
    "maxtext-default": "tokenizer.default",
    "gemma": "tokenizer.gemma",
    "gemma3": "tokenizer.gemma3",
    "gemma4": "tokenizer_gemma4.model",
    "llama2": "tokenizer.llama2",
    "llama3": "tokenizer_llama3.tiktoken",
    "mistral-v1": "tokenizer.mistral-v1",
    "mistral-v3": "tokenizer.mistral-v3",
    "qwen3": "qwen3-tokenizer",
}
"""The tokenizers in MaxText's package, by the short names that they get here."""


@dataclasses.dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer that was found good, before workers have a copy.

    Attributes:
        name: in the results.
        source: where it is from, as it was given.
        kind: the library that defines what it gives.
        content: a TokenizerFile where that is `tokenizers`, and else the file's bytes.
        vocabulary: its size, and the ids of its unknown tokens and single bytes.
    """

    name: str
    source: str
    kind: TokenizerKind
    content: TokenizerFile | bytes
    vocabulary: Vocabulary


def split_name(given: str) -> tuple[str | None, str]:
    """The parts of NAME=PATH; without a name, or where there is a file that is called so, (None, all of it).

    >>> split_name("german=corpora/*.parquet"), split_name("corpora/*.parquet")
    (('german', 'corpora/*.parquet'), (None, 'corpora/*.parquet'))
    """
    named = None if os.path.exists(given) else _NAME.fullmatch(given)
    return (named[1], named[2]) if named else (None, given)


def hub_revision(path: str) -> tuple[str, str] | None:
    """The name and the revision of OWNER/NAME@REVISION; None for a path, or where there is a file that is called so.

    >>> hub_revision("owner/name@1a2b"), hub_revision("owner/name.json")
    (('owner/name', '1a2b'), None)
    """
    found = None if os.path.exists(path) else _HUB_REVISION.fullmatch(path)
    return (found[1], found[2]) if found else None


def _load(given: str) -> LoadedTokenizer:
    """Loads a tokenizer that the user names: NAME=PATH, or a path or hub id alone."""
    name, path = split_name(given)
    return _load_as(name or _short_name(path), path, given=path)


def _short_name(path: str) -> str:
    """A name for a tokenizer: the last part of its path that tells one from others.

    >>> [_short_name(path) for path in ("a/qwen/tokenizer.json", "b/neox.json", "owner/name@1a2b", "c/nanochat/")]
    ['qwen', 'neox', 'name', 'nanochat']
    """
    hub = _HUB_REVISION.fullmatch(path)
    parts = [part for part in (hub[1] if hub else path).split("/") if part]
    last = parts[-1].removesuffix(".gz").removesuffix(".json") if parts else path
    folder = parts[-2] if len(parts) > 1 else ""
    return folder if last == "tokenizer" and folder not in ("", ".", "..") else last


def _load_as(name: str, path: str, *, given: str) -> LoadedTokenizer:
    if hub := hub_revision(path):
        tokenizer = load_tokenizer(hub[0], revision=hub[1])
        return LoadedTokenizer(name, given, "tokenizers", tokenizer, vocabulary_of(tokenizer))
    if not path.endswith((".json", ".gz")) and _is_file(path):
        data = storage.read_bytes(path)
        if not data.lstrip().startswith(b"{"):
            kind = foreign_kind(data)
            try:
                return LoadedTokenizer(name, given, kind, data, FOREIGN_ENCODERS[kind](data).vocabulary())
            except ValueError as error:
                raise UsageError(
                    f"{path}: taken for a {kind} file, but {error}; is it the right file, and whole? Copy it again"
                ) from error
            except ImportError as error:
                raise UsageError(f"{path}: needs the package {kind}, which is not installed: install it") from error
    tokenizer = load_tokenizer(path)
    return LoadedTokenizer(name, given, "tokenizers", tokenizer, vocabulary_of(tokenizer))


def _is_file(path: str) -> bool:
    return os.path.isfile(path) if storage.is_local(path) else storage.exists(path)


def load_public() -> tuple[list[LoadedTokenizer], dict[str, str]]:
    """The tokenizers in MaxText's package that load, and why others do not, by name."""
    spec = importlib.util.find_spec("maxtext")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        return [], dict.fromkeys(PUBLIC_TOKENIZERS, "the package maxtext is not installed")
    loaded, left_out = [], {}
    for name, file in PUBLIC_TOKENIZERS.items():
        path = Path(places[0], _MAXTEXT_ASSETS, file)
        try:
            if not path.exists():
                raise UsageError(f"the installed version of maxtext has no {file}")
            loaded.append(_load_as(name, str(path), given=f"maxtext:{file}"))
        except BroetchenError as error:
            left_out[name] = str(error)
    return loaded, left_out


def load_tokenizers(given: Sequence[str], *, with_public: bool) -> tuple[list[LoadedTokenizer], dict[str, str]]:
    """All tokenizers of an evaluation, and why public ones are left out, by name.

    Args:
        given: each a path or `OWNER/NAME@REVISION`, or `NAME=` and one of these.
        with_public: adds those of `load_public`, with a warning for each that is left out.

    Raises:
        UsageError: there is none, one cannot be loaded, or two have the same name.
    """
    loaded = [_load(one) for one in given]
    public, left_out = load_public() if with_public else ([], {})
    for name, reason in left_out.items():
        _LOGGER.warning("leaving out the public tokenizer %s: %s", name, reason)
    loaded += public
    if not loaded:
        raise UsageError("no tokenizer to evaluate: name one (a tokenizer.json, a folder, OWNER/NAME@REVISION)")
    names = [one.name for one in loaded]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        first, second = [one.source for one in loaded if one.name == twice][:2]
        raise UsageError(f"{first} and {second} would both be called {twice!r}; write NAME=PATH for one of them")
    return loaded, left_out
