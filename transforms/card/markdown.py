"""Markdown of text that anyone may have written: nothing in it is taken for a tag, a link or the end of a cell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from transforms.errors import without_controls

# Within a code span of a table: characters that end the span or the cell, or that plain HTML might take for a tag.
_UNSAFE = re.compile(r"[`|\\\n\r\t]|<(?![\s=\d])|&(?=[#\w])|^\s|\s$|^$")
_ASCII_SIGN = re.compile(r"[!-/:-@\[-`{-~]")


def code(text: str) -> str:
    """Text as code, on one line, in a table or out of it; controls are written out.

    >>> print(code("score >= 0.9 and length < 2"), code("a|<b>"))
    `score >= 0.9 and length < 2` <code>a&#124;&#60;b&#62;</code>
    """
    text = without_controls(text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t"))
    if not _UNSAFE.search(text):
        return f"`{text}`"
    # A character reference is never markup, in HTML or in Markdown.
    return f"<code>{_ASCII_SIGN.sub(lambda sign: f'&#{ord(sign[0])};', text)}</code>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> str:
    """A table.

    Args:
        head: the titles of its columns.
        rows: cells of Markdown.
        numbers: the columns that are set to the right.
    """
    right = set(numbers)
    lines = [head, ["---:" if column in right else "---" for column in range(len(head))], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
