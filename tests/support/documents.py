"""The blocks, commands and links of the documents, as a reader would copy or follow them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_PROGRAM = re.compile(r"(?:\.venv/bin/)?(broetchen|python|make|docker|gcloud|uv|pip|git)")


def blocks(document: Path, language: str = "") -> list[str]:
    """The fenced blocks of a language; those without one are shells and their output."""
    return [text for found, text in _BLOCK.findall(document.read_text(encoding="utf-8")) if found == language]


def commands(document: Path) -> list[list[str]]:
    """The words of each command line in the document's blocks, the program first; comments are left out."""
    lines = [line for block in blocks(document) for line in block.replace("\\\n", " ").splitlines()]
    found = [shlex.split(line, comments=True) for line in lines if _PROGRAM.match(line.partition(" ")[0] + " ")]
    # A program's own messages also begin with its name: `broetchen: …`.
    return [[words[0].removeprefix(".venv/bin/"), *words[1:]] for words in found if not words[0].endswith(":")]


def prose(document: Path) -> str:
    """The document without its blocks."""
    return _BLOCK.sub("", document.read_text(encoding="utf-8"))


def code_spans(document: Path) -> list[str]:
    """The code within the prose, on one line each."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(document))]


def links(document: Path) -> list[str]:
    """Where the document's links lead, in the order of the text."""
    text = prose(document)
    return [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.M)]


def anchors(document: Path) -> set[str]:
    """The names by which headings can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
