"""Markdown of any text: as CommonMark's reader shows it, it is that text, in its cell, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.markdown import Markdown

from transforms.card.markdown import code, table
from transforms.errors import without_controls


def paragraphs_and_cells(markdown: str) -> Iterator[str]:
    """The text of each paragraph and cell, which has no markup but code."""
    for token in Markdown(markdown).parsed:
        assert token.type not in ("html_block", "heading_open", "fence", "code_block")
        if token.type == "inline":
            assert {part.type for part in token.children or ()} <= {"text", "code_inline", "html_inline"}
            assert {part.content for part in token.children or () if part.type == "html_inline"} <= {
                "<code>",
                "</code>",
            }
            yield "".join(part.content for part in token.children or () if part.type != "html_inline")


signs = st.text(st.sampled_from("`|\\<>&*_[]()#!~ \n\tab\u202e\x00ö-'\":;"), max_size=12)


@given(st.one_of(signs, st.text(max_size=20)), signs)
def test_any_text_is_shown_as_it_is_and_stays_in_its_cell(text: str, other: str) -> None:
    texts = [part.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") for part in (text, other)]
    assert list(paragraphs_and_cells(table(["one", "two"], [[code(text), code(other)]]))) == [
        *("one", "two"),
        *map(without_controls, texts),
    ]


@pytest.mark.parametrize(
    "text",
    ["<script>alert(1)</script>", "a | b", "`x`", "a\\|b", "[link](javascript:1)", "-->", "&lt;", "\n# head", ""],
)
def test_what_could_be_markup_is_text(text: str) -> None:
    line = code(text)
    assert "\n" not in line
    assert list(paragraphs_and_cells(f"{line} end\n")) == [f"{text.replace(chr(10), chr(92) + 'n')} end"]
    assert "<script" not in line


def test_a_table_sets_numbers_to_the_right() -> None:
    assert table(["a", "b"], [["x", "1"]], numbers=[1]) == "| a | b |\n| --- | ---: |\n| x | 1 |\n"
