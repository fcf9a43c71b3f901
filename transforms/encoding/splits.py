"""Regular expressions by which pre-tokenizers split text into words, and on which the tests compare the engines.

Engines take some others for equal to these that `tokenizers` treats differently, such as the possessive form of
cl100k's.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Literal

PROVEN_SPLITS: dict[str, tuple[str, ...]] = {
    "gpt2": (r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",),
    "cl100k": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|"
        r"\s+(?!\S)|\s+",
    ),
    "llama3": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
        r"\s+(?!\S)|\s+",
    ),
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
        r"\s+(?!\S)|\s+",
    ),
    "qwen3.5": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|"
        r"\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "o200k": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "nemotron": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
        r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "deepseek3": (
        r"\p{N}{1,3}",
        "[一-龥぀-ゟ゠-ヿ]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
        " ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    ),
}
"""The patterns of the `Split`s in a pre-tokenizer, one after another, by the name that people know them by."""


Digits = Literal["pairs", "single"]
"""The handling of numbers outside of an engine: it splits them into single digits, which are merged to pairs again; or
it is given every digit by itself."""

NANOCHAT_SPLIT = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
"""The split of nanochat (https://github.com/karpathy/nanochat, nanochat/tokenizer.py)."""


def _greedy(pattern: str) -> str:
    """A possessive pattern without its possessive marks: here it only spares steps back that find nothing."""
    return pattern.replace("?+", "?").replace("++", "+")


@functools.cache
def known_spellings() -> Mapping[tuple[str, ...], tuple[tuple[str, ...], Digits | None]]:
    """Patterns that split as a proven one does, as (that one, the treatment of numbers outside of it)."""
    spellings: dict[tuple[str, ...], tuple[tuple[str, ...], Digits | None]]
    spellings = {patterns: (patterns, None) for patterns in PROVEN_SPLITS.values()}
    in_pairs = [PROVEN_SPLITS[name][0].replace("{1,3}", "{1,2}") for name in ("cl100k", "llama3")]
    for pattern in (NANOCHAT_SPLIT, _greedy(NANOCHAT_SPLIT), *in_pairs):
        spellings[(pattern,)] = PROVEN_SPLITS["qwen2"], "pairs"
    minbpe = NANOCHAT_SPLIT.replace("{1,2}", "{1,3}")
    for pattern in (minbpe, _greedy(minbpe)):
        spellings[(pattern,)] = PROVEN_SPLITS["cl100k"], None
    return spellings


COVERING_SPLITS = frozenset(patterns for name, patterns in PROVEN_SPLITS.items() if name != "deepseek3")
"""The splits that match every character. Nothing lies between the matches, so that removing it isolates them."""

_POSSESSIVE_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|"
    r"\s+(?!\S)|\s+"
)
_BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"

SPLITS_AT_CUTS = frozenset({*(patterns[-1] for patterns in known_spellings()), _POSSESSIVE_CL100K, _BLOOM})
"""The patterns that split between a letter or digit and a space with another after it, in any surroundings."""

SPLITS_OF_CHARACTERS = frozenset({*PROVEN_SPLITS["deepseek3"][:-1], "[0-9][0-9][0-9]", r"\d{1,3}"})
"""The patterns whose matches hold no space, and depend on nothing beyond them."""


@functools.cache
def byte_characters() -> tuple[str, ...]:
    """The character of each byte, 256 in all.

    The visible characters of Latin-1 stand for themselves; other bytes get the code points from U+0100 on in turn
    (https://github.com/openai/gpt-2, src/encoder.py).

    >>> [byte_characters()[byte] for byte in (0x20, 0x41, 0x80, 0xE4)]
    ['Ġ', 'A', 'Ģ', 'ä']
    """
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in seen else next(others)) for byte in range(256))
