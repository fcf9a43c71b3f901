"""Finds documents that hold the string of a special token, such as `<|eos|>`.

A build takes such a string for text (`tokenizer.special_tokens: text`). A trainer that tokenizes text itself takes it
for the token, as `tokenizers` does by default, so that a document with the string of EOS ends where it does not.

Which strings these are, tokenizer.json alone says: those of the added tokens that it calls special. They are looked for
in the text as it is, and those of tokens that it calls `normalized` in the normalized text as well, as `tokenizers`
does. How a string stands among others does not matter: one that another token hides counts all the same.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from transforms.encoding.pool import tokenizer_file
from transforms.segments import code_points
from transforms.segments.added_tokens import pattern_of
from transforms.segments.code_points import Form
from transforms.texts import text_array, text_buffers
from transforms.tokenizer.file import TokenizerFile
from transforms.tokenizer.spec import TokenizerSpec

# RE2 finds strings that begin alike at gigabytes a second, and other patterns at some 300 MB/s: so there is a pattern
# for each first character, as long as these are few. Very long patterns are too large for it.
_MOST_PATTERNS = 16
_MOST_IN_PATTERN = 500

_FORMS: tuple[Form, ...] = ("NFC", "NFKC")


class SpecialStrings:
    """The strings of a tokenizer's special tokens, as they are looked for in texts.

    Args:
        tokenizer: the tokenizer.
    """

    def __init__(self, tokenizer: TokenizerFile) -> None:
        whole = json.loads(tokenizer.json)
        special = special_tokens(whole)
        normalizer = whole.get("normalizer")
        normalized = [token["content"] for token in special if normalizer and token.get("normalized")]
        self._raw = _patterns(token["content"] for token in special)
        self._normalized: list[str] = []
        self._names: list[str] = []
        self._form: Form | None = None
        if normalized:
            loaded = Tokenizer.from_str(tokenizer.json).normalizer
            self._normalize: Callable[[str], str] = loaded.normalize_str
            self._names = [name for name in map(self._normalize, normalized) if name]
            self._normalized = _patterns(self._names)
            self._form = next((form for form in _FORMS if normalizer.get("type") == form), None)

    def held_by(self, texts: pa.LargeStringArray) -> npt.NDArray[np.bool_]:
        """Which documents hold at least one of them: bool [documents].

        Args:
            texts: valid UTF-8, without nulls.
        """
        found = _matches(texts, self._raw)
        if self._normalized:
            found |= self._held_normalized(texts)
        return found

    def _held_normalized(self, texts: pa.LargeStringArray) -> npt.NDArray[np.bool_]:
        if self._form is None:
            return self._one_by_one(texts)
        data, offsets = text_buffers(texts)
        data, offsets = data[offsets[0] : offsets[-1]], offsets - offsets[0]
        positions, characters = code_points.non_ascii(data)
        found = _matches(
            text_array(*code_points.normalize(data, offsets, positions, characters, self._form)), self._normalized
        )
        # Documents with characters that `unicodedata` and `tokenizers` may normalize differently.
        doubtful = np.unique(code_points.documents_at(offsets, positions[~code_points.agreed()[characters]]))
        found[doubtful] = self._one_by_one(texts.take(pa.array(doubtful, pa.int64())))
        return found

    def _one_by_one(self, texts: pa.LargeStringArray) -> npt.NDArray[np.bool_]:
        normalized = map(self._normalize, texts.to_pylist())
        return np.array([any(name in text for name in self._names) for text in normalized], np.bool_)


def special_tokens(tokenizer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The added tokens that a tokenizer.json calls special, as they stand there; those without a name are left out."""
    return [token for token in tokenizer.get("added_tokens") or [] if token.get("special") and token["content"]]


class SpecialDocuments:
    """Counts the documents that hold the string of a special token, as they pass by.

    Attributes:
        count: of them so far.

    Args:
        tokenizer: whose special tokens are meant.

    Raises:
        BroetchenError: its file is not the one that the build was started with.
    """

    def __init__(self, tokenizer: TokenizerSpec) -> None:
        self._strings = _strings_of(tokenizer_file(tokenizer))
        self.count = 0

    def add(self, texts: pa.LargeStringArray) -> None:
        """Counts those among some more documents, which are valid UTF-8, without nulls."""
        self.count += int(np.count_nonzero(self._strings.held_by(texts)))


@functools.lru_cache(maxsize=4)
def _strings_of(tokenizer: TokenizerFile) -> SpecialStrings:
    return SpecialStrings(tokenizer)


def _patterns(names: Iterable[str]) -> list[str]:
    """RE2 patterns that match where one of the names stands."""
    by_first: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        by_first[name[0]].append(name)
    groups = list(by_first.values())
    if len(groups) > _MOST_PATTERNS:
        groups = [[name for group in groups for name in group]]
    parts = [
        group[start : start + _MOST_IN_PATTERN] for group in groups for start in range(0, len(group), _MOST_IN_PATTERN)
    ]
    return [pattern for part in parts if (pattern := pattern_of(part)) is not None]


def _matches(texts: pa.LargeStringArray, patterns: Iterable[str]) -> npt.NDArray[np.bool_]:
    found = np.zeros(len(texts), np.bool_)
    for pattern in patterns:
        found |= pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False)
    return found
