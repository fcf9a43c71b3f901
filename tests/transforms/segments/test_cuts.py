"""Where documents can be cut."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from transforms.segments.cuts import cuts_in, first_cut, last_cut


@pytest.mark.parametrize("word", ["Кириллица ", "한국어 ", "für "])
@pytest.mark.parametrize("size", [3, 100, 1000])
def test_cuts_are_found_before_and_after_any_place(word: str, size: int) -> None:
    """This holds where the next one is far as well."""
    text = f"{'漢' * size}{word}{word}{'…' * size}{word}a b{'漢' * size}".encode()
    data = np.frombuffer(text, np.uint8)
    found = cuts_in(data, 0, len(data)).tolist()
    assert found == [
        place
        for place in range(1, len(data) - 1)
        if text[place] == 0x20
        and unicodedata.category(text[:place].decode()[-1])[0] == "L"
        and unicodedata.category(text[place + 1 :].decode()[0])[0] == "L"
    ]
    assert len(found) > 2
    starts = [place for place in range(len(data)) if data[place] & 0xC0 != 0x80]
    for place in starts:
        after = first_cut(data, place, len(data))
        before = last_cut(data, 0, place)
        # The characters on both sides of it lie behind, or before.
        assert after == next((cut for cut in found if cut - len(text[:cut].decode()[-1].encode()) >= place), None)
        ends = (cut for cut in reversed(found) if cut + 1 + len(text[cut + 1 :].decode()[0].encode()) <= place)
        assert before == next(ends, None)
