"""Patterns mean the same on every filesystem as to Python's own glob on a disk, and a quoted name is a name."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.errors import UsageError
from transforms.patterns import divided, fixed_folder, is_wild, matches, quoted, unquoted

_NAMES = st.text("ab.[]*?!-", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))
_PARTS = st.one_of(st.just("**"), st.text("ab.[]*?!-", min_size=1, max_size=4)).filter(
    lambda part: part not in (".", "..") and (part == "**" or "**" not in part)
)


@given(st.lists(_NAMES, min_size=1, max_size=4))
def test_a_quoted_name_is_that_name_alone(names: list[str]) -> None:
    pattern = quoted("/".join(names))
    assert unquoted(pattern) == "/".join(names)
    assert not is_wild(pattern)
    assert fixed_folder(f"{pattern}/*.parquet") == "/".join(names) + "/"
    assert matches(pattern.split("/"), names, hidden=True)


@settings(max_examples=300)
# At its end, glob takes ** behind the name of a file for that file as well, and a shell does not.
@given(
    st.lists(_PARTS, min_size=1, max_size=3).filter(lambda parts: parts[-1] != "**"),
    st.lists(_NAMES, min_size=1, max_size=3),
)
def test_the_rules_are_those_of_glob(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], names: list[str]
) -> None:
    root = tmp_path_factory.mktemp("names")
    path = root.joinpath(*names)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    there = glob.glob("/".join(parts), root_dir=root, recursive=True, include_hidden=False)
    found = {name.rstrip("/") for name in there if (root / name).is_file()}
    # As a name without wildcards is looked up there, and not matched.
    assert ("/".join(names) in found) == matches(parts, names)


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [
        ("*/a.parquet", ""),
        ("/*/a.parquet", "/"),
        ("a.parquet", ""),
        ("/a.parquet", "/"),
        ("?.parquet", ""),
        ("[ab]/x", ""),
        ("de/[ab]/x", "de/"),
        ("de/a[1/x", "de/a[1/"),
        ("./*/x", "./"),
        ("../*/x", "../"),
        ("de//*", "de//"),
        ("gs://bucket/*.parquet", "gs://bucket/"),
        ("hf://datasets/o/n@main/de/*/x", "hf://datasets/o/n@main/de/"),
        ("mix[[]1]/[*]/[?]/a*", "mix[1]/*/?/"),
    ],
)
def test_the_folder_that_a_pattern_names(pattern: str, folder: str) -> None:
    assert fixed_folder(pattern) == folder


def test_two_stars_within_a_name() -> None:
    with pytest.raises(UsageError, match=r"de/\*\*\.parquet: in \*\*\.parquet, \*\* is not alone .*\*\*/\*\.parquet"):
        divided("de/**.parquet")


def test_no_braces_and_no_backslashes(tmp_path: Path) -> None:
    assert not is_wild("{a,b}.parquet")
    assert not is_wild("a\\.parquet")
    assert not matches(["{a,b}"], ["a"])
