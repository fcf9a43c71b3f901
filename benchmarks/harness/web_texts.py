"""Makes clean documents look as web pages and PDFs do: runs of spaces, tabs, soft hyphens, emoji, fractions.

The samples come from documentation and hold none of the strings that make encoding slow: added tokens for runs
of spaces, characters that normalization changes, and code points on which the engines disagree.

How often each thing stands in a document is an assumption, not a measurement: 4 to 6 % of the web pages and some 55 %
of the PDFs hold two spaces in a row, and text that is rare on the web (new emoji, rare scripts) is in a few of 10,000
documents. The words stay those of the document.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

SENTENCES_APART = 0.03
"""Share of the web pages with two spaces between sentences."""
INDENTED = 0.02
"""Share of the web pages with a list whose lines are indented by 4, 8 or 12 spaces."""
TABBED = 0.02
"""Share of the web pages whose first lines begin with a tab."""
LAID_OUT = 0.55
"""Share of the PDFs in which columns and justified lines have become runs of spaces."""
CHARACTERS_A_RUN = 300
"""About one run stands in so many characters of such a PDF."""
RUNS = (2, 3, 4, 5, 8, 13, 31)
"""Lengths of the runs, in spaces."""
_LIST_LINES = 30
_TABBED_LINES = 5


@dataclass(frozen=True)
class Mark:
    """Something that stands in some documents.

    Attributes:
        share: of the documents that have it.
        times: how often it stands in such a document.
        spellings: one of these each time.
        within_words: whether it is put anywhere; else it takes the place of a space.
    """

    share: float
    times: int
    spellings: tuple[str, ...]
    within_words: bool = False


SOFT_HYPHEN, REPLACEMENT_CHARACTER, BULLET = "\u00ad", "\ufffd", "\uf0b7"
"""The bullet is Symbol's, of the private use area."""
_EMOJI = tuple(f" {sign}{after} " for sign, after in product("😀🤖👍❤✔🎉", ("", "\ufe0f", "\u200d👩")))
_NEW_EMOJI = tuple(f" {sign} " for sign in "🩷🫨🪿🛜")
_FLAG_OF_ENGLAND = "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
_SUPERSCRIPTS = (" 10² ", " 1½ ", " 10³ ")
_FAR_PRIVATE, _RARE_HAN, _G_CLEF = "\U000f0219", "\U00020bb7", "\U0001d11e"

RARE = (*_NEW_EMOJI, _FAR_PRIVATE, _RARE_HAN, _G_CLEF)
"""Code points that the engines do not know alike, so that the reference encodes their surroundings."""

WEB_MARKS = (
    Mark(0.10, 3, ("\u00a0",)),
    Mark(0.02, 20, (SOFT_HYPHEN,), within_words=True),
    Mark(0.05, 3, _EMOJI),
    Mark(0.002, 1, _NEW_EMOJI),
    Mark(0.0005, 1, (f" {_FLAG_OF_ENGLAND} ",)),
    Mark(0.01, 3, (f"\n{BULLET} ",)),
    Mark(0.0005, 2, (_FAR_PRIVATE,), within_words=True),
    Mark(0.01, 2, (REPLACEMENT_CHARACTER,), within_words=True),
    Mark(0.002, 5, (" 𝐇𝐞𝐥𝐥𝐨 ",)),
    Mark(0.0002, 1, (f" {_RARE_HAN} ",)),
    Mark(0.05, 1, (" 20 m² ", " ½ ", " 3 km² ")),
    Mark(0.005, 1, _SUPERSCRIPTS),
)
PDF_MARKS = (
    Mark(0.10, 5, (f"\n{BULLET} ",)),
    Mark(0.003, 3, (_FAR_PRIVATE,), within_words=True),
    Mark(0.05, 5, (REPLACEMENT_CHARACTER,), within_words=True),
    Mark(0.02, 8, (" 𝑥 ",)),
    Mark(0.05, 40, (SOFT_HYPHEN,), within_words=True),
    Mark(0.0002, 1, (f" {_G_CLEF} ",)),
    Mark(0.20, 3, (" m² ", " ½ ")),
    Mark(0.05, 2, _SUPERSCRIPTS),
    Mark(0.05, 3, ("\n\x0c",)),
)


def web(text: str, rng: random.Random) -> str:
    """A document as a web page has it.

    >>> all(web("One. Two.", random.Random(seed)) == web("One. Two.", random.Random(seed)) for seed in range(99))
    True
    """
    if rng.random() < SENTENCES_APART:
        text = text.replace(". ", ".  ")
    if rng.random() < INDENTED:
        lines = (f"{'    ' * rng.randrange(1, 4)}{word}\n" for word in text.split()[:_LIST_LINES])
        text = f"{text}\n{''.join(lines)}"
    if rng.random() < TABBED:
        text = text.replace("\n", "\n\t", _TABBED_LINES)
    return _changed(text, _places(text, WEB_MARKS, rng))


def pdf(text: str, rng: random.Random) -> str:
    """A document as it comes out of a PDF."""
    places = _places(text, PDF_MARKS, rng)
    if rng.random() < LAID_OUT:
        for _ in range(max(1, len(text) // CHARACTERS_A_RUN)):
            places[_near_space(text, rng)] = " " * rng.choice(RUNS)
    return _changed(text, places)


def _places(text: str, marks: Sequence[Mark], rng: random.Random) -> dict[tuple[int, int], str]:
    """The strings to put into the text, by the part that each replaces, as (start, end)."""
    places = {}
    for mark in marks:
        if rng.random() < mark.share:
            for _ in range(mark.times):
                anywhere = rng.randrange(len(text) + 1)
                place = (anywhere, anywhere) if mark.within_words else _near_space(text, rng)
                places[place] = rng.choice(mark.spellings)
    return places


def _near_space(text: str, rng: random.Random) -> tuple[int, int]:
    """The first space after some place in the text; its end where there is none."""
    space = text.find(" ", rng.randrange(len(text) + 1))
    return (space, space + 1) if space >= 0 else (len(text), len(text))


def _changed(text: str, places: dict[tuple[int, int], str]) -> str:
    pieces: list[str] = []
    before = 0
    for (start, end), piece in sorted(places.items()):
        pieces += text[before:start], piece
        before = end
    return "".join([*pieces, text[before:]])
