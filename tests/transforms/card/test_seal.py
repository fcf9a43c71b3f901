"""The seal: one's own file is known by it, and any change to the file breaks it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.card.seal import is_sealed, sealed

lines = st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=10)).map(
    lambda found: "".join(f"{line}\n" for line in found)
)


@pytest.mark.parametrize("comment", ["# {}", "<!-- {} -->"])
@given(before=lines, after=lines, place=st.integers(0, 10_000), sign=st.sampled_from("x \n#"))
def test_a_change_anywhere_breaks_the_seal(comment: str, before: str, after: str, place: int, sign: str) -> None:
    text = sealed(before, after, comment)
    assert is_sealed(text.encode())
    at = place % (len(text) + 1)
    changed = text[:at] + sign + text[at:]
    if changed != text:
        assert not is_sealed(changed.encode())


@pytest.mark.parametrize(
    "data", [b"", b"# Mine\n", b"\xff", b"name: mix\n", b"# broetchen sha256:" + b"0" * 64 + b"\n"]
)
def test_what_no_build_has_written_has_none(data: bytes) -> None:
    assert not is_sealed(data)


def test_two_seals_are_none() -> None:
    text = sealed("a\n", "", "# {}")
    assert not is_sealed((text + text.splitlines()[-1] + "\n").encode())
    assert not is_sealed((text + text).encode())
