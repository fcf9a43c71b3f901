"""Texts as on the web: the same each time, with what is promised as often as is promised."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from benchmarks.harness.web_texts import BULLET, LAID_OUT, RARE, REPLACEMENT_CHARACTER, SOFT_HYPHEN, pdf, web
from transforms.segments import code_points

TEXT = "Ein Satz mit Wörtern. Another one, with words.\nUnd noch einer. " * 30
KINDS = [pytest.param(web, id="web"), pytest.param(pdf, id="pdf")]


def made(kind: Callable[[str, random.Random], str], documents: int = 4000) -> list[str]:
    rng = random.Random(7)
    return [kind(TEXT, rng) for _ in range(documents)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_decides_the_texts(kind: Callable[[str, random.Random], str]) -> None:
    first = made(kind, 200)
    assert first == made(kind, 200)
    assert len(set(first)) > 1


def test_some_web_pages_and_most_pdfs_have_two_spaces_in_a_row() -> None:
    shares = [sum("  " in text for text in made(kind)) / 4000 for kind in (web, pdf)]
    assert 0.04 < shares[0] < 0.06
    assert LAID_OUT - 0.03 < shares[1] < LAID_OUT + 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_each_mark_is_there(kind: Callable[[str, random.Random], str]) -> None:
    everything = "".join(made(kind))
    marks = {SOFT_HYPHEN, REPLACEMENT_CHARACTER, BULLET, "½", "²"}
    marks |= {"\u00a0", "😀", "\t"} if kind is web else {"𝑥", "\x0c"}
    assert {mark for mark in marks if mark not in everything} == set()
    assert any(character in everything for character in RARE)


def test_the_rare_ones_are_those_that_the_engines_do_not_know_alike() -> None:
    assert not code_points.agreed()[[ord(character) for text in RARE for character in text.strip()]].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["", "Wort", " ", "ohne-Leerzeichen.\n"])
def test_short_texts_do_no_harm(kind: Callable[[str, random.Random], str], text: str) -> None:
    rng = random.Random(1)
    for _ in range(300):
        kind(text, rng)
