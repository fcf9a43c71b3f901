"""Words of texts, as Unicode defines them."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections import Counter

import pyarrow as pa


@functools.cache
def word_pattern() -> re.Pattern[str]:
    r"""The pattern of a word: `\w+` as Unicode defines it, that is letters, marks, digits, connectors and joiners.

    UTS #18, "Unicode Regular Expressions", Annex C. Python's own `\w` leaves out the marks, and would cut words that
    have accents as combining characters, or vowel signs as in Hindi.

    >>> [len(word) for word in word_pattern().findall("Bro\u0308tchen, 2,5 kg l’E\u0301té")]
    [9, 1, 1, 2, 1, 4]
    """
    marks = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("M")]
    # The long class is slow to miss, so most characters that it lacks do not get that far.
    return re.compile(rf"(?:\w++|(?![\x00-\u02ff])[\u200c\u200d{''.join(map(_escaped, marks))}]++)++")


def _escaped(code: int) -> str:
    return f"\\U{code:08x}"


def count_words(texts: pa.LargeStringArray) -> Counter[str]:
    """How often each word occurs in texts, as they are spelled; a word is what `word_pattern` matches."""
    words: Counter[str] = Counter()
    for text in texts.to_pylist():
        words.update(word_pattern().findall(text))
    return words
