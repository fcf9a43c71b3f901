"""The characters that stand for bytes in byte-level vocabularies."""

from __future__ import annotations

import functools


@functools.cache
def byte_characters() -> tuple[str, ...]:
    """The character of each byte, 256 in all.

    Those of Latin-1 that can be seen stand for themselves, and the others get the code points from U+0100 on in turn
    (https://github.com/openai/gpt-2, src/encoder.py).

    >>> [byte_characters()[byte] for byte in (0x20, 0x41, 0x80, 0xE4)]
    ['Ġ', 'A', 'Ģ', 'ä']
    """
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in seen else next(others)) for byte in range(256))
