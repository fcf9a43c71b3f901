"""Cutting text at an exact number of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.budget.text_cut import DocumentSpan, find_cut, find_last_cut, take_exactly, take_last_exactly


def words(text: str) -> int:
    """A toy tokenizer: one token a word, with any spaces."""
    return len(text.split())


def pairs(text: str) -> int:
    """A toy tokenizer with two tokens for each digit, so that some counts have no cut, and none for a `_`."""
    return sum(2 if character.isdigit() else character != "_" for character in text)


@pytest.mark.parametrize(
    ("start", "stop", "part", "whole"),
    [(0, None, "straße", True), (0, 6, "straße", False), (1, None, "traße", False), (2, 5, "raß", False)],
)
def test_a_span_is_whole_or_characters_of_its_document(start: int, stop: int | None, part: str, whole: bool) -> None:
    span = DocumentSpan(ordinal=7, first=3, last=4, tokens=9, start=start, stop=stop)
    assert (span.part_of("straße"), span.whole, span.documents) == (part, whole, 1)


def test_a_span_is_of_whole_documents_unless_told_otherwise() -> None:
    assert DocumentSpan(0, 2, 7, 30) == DocumentSpan(0, 2, 7, 30, start=0, stop=None)
    assert DocumentSpan(0, 2, 7, 30).documents == 5


@given(
    st.text("ab 1_", min_size=2, max_size=60) | st.text("a \n", min_size=150, max_size=400),
    st.integers(1, 60),
    st.sampled_from([words, pairs]),
)
def test_of_all_prefixes_with_the_tokens_the_longest_is_kept(
    text: str, tokens: int, count: Callable[[str], int]
) -> None:
    """Where a longer prefix never has fewer tokens. A cut at another place would give the same config other bytes."""
    possible = [kept for kept in range(1, len(text)) if count(text[:kept]) == tokens]
    assert find_cut(text, tokens, count) == max(possible, default=None)


def test_no_cut_is_before_the_first_character_or_behind_the_last() -> None:
    """It would leave a document without text on one of its sides."""
    assert find_cut("ab", 0, words) is None
    assert find_cut("ab", 2, pairs) is None
    assert find_cut("ab", 1, pairs) == 1
    assert find_cut(" ab", 0, words) == 1
    assert find_cut("a", 1, words) is None


def counting(likely: int, others: Mapping[int, int]) -> Callable[[str], int]:
    """A tokenizer with 1 token for up to `likely` characters, 9 for more, and as `others` say for those lengths."""
    return lambda text: others.get(len(text), 1 if len(text) <= likely else 9)


@pytest.mark.parametrize(
    ("with_the_tokens", "kept"),
    [
        ((), None),
        ((103,), 103),
        ((98,), 98),
        ((98, 103), 98),
        ((96, 103), 103),
        # The longer one of two that are as near.
        ((98, 102), 102),
        # 64 characters to either side, and no more: where a cut falls decides the dataset's bytes.
        ((164,), 164),
        ((165,), None),
        ((36,), 36),
        ((35,), None),
        ((36, 164), 164),
        ((36, 165), 36),
    ],
)
def test_the_cut_nearest_to_the_likeliest_place_is_taken(with_the_tokens: tuple[int, ...], kept: int | None) -> None:
    """The likeliest place is 100; none of the lengths that the bisection tries on its way there has the tokens."""
    count = counting(100, dict.fromkeys(with_the_tokens, 5))
    assert find_cut("x" * 1000, 5, count) == kept


def test_the_character_before_the_likeliest_place_is_not_left_out() -> None:
    assert find_cut("x" * 1000, 5, counting(101, {100: 5})) == 100


def test_the_likeliest_place_may_be_the_beginning_or_the_end() -> None:
    assert find_cut("x" * 1000, 5, counting(0, {64: 5})) == 64
    assert find_cut("x" * 1000, 5, counting(0, {65: 5})) is None
    assert find_cut("x" * 1000, 5, counting(1000, {935: 5})) == 935
    assert find_cut("x" * 1000, 5, counting(1000, {934: 5})) is None


class Shards:
    """Documents by shard, counted by `pairs`, and their characters by place: (shard, document, character)."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self.texts = texts
        self.everything = [DocumentSpan(o, 0, len(some), sum(map(pairs, some))) for o, some in enumerate(texts)]

    def lengths(self, ordinal: int) -> npt.NDArray[np.uint32]:
        return np.array([pairs(text) for text in self.texts[ordinal]], np.uint32)

    def text(self, span: DocumentSpan) -> str:
        return "".join(text[span.start : span.stop] for text in self.texts[span.ordinal][span.first : span.last])

    def places(self, spans: Iterable[DocumentSpan]) -> list[tuple[int, int, int]]:
        return [
            (span.ordinal, document, character)
            for span in spans
            for document in range(span.first, span.last)
            for character in range(len(self.texts[span.ordinal][document]))[span.start : span.stop]
        ]

    def cut(self, span: DocumentSpan, tokens: int) -> tuple[DocumentSpan, DocumentSpan] | None:
        return self._parts(span, find_cut(self.text(span), tokens, pairs))

    def cut_last(self, span: DocumentSpan, tokens: int) -> tuple[DocumentSpan, DocumentSpan] | None:
        return self._parts(span, find_last_cut(self.text(span), tokens, pairs))

    def _parts(self, span: DocumentSpan, kept: int | None) -> tuple[DocumentSpan, DocumentSpan] | None:
        assert span.documents == 1
        text = self.text(span)
        if kept is None:
            return None
        o, first, last, at = span.ordinal, span.first, span.last, span.start + kept
        return (
            DocumentSpan(o, first, last, pairs(text[:kept]), span.start, at),
            DocumentSpan(o, first, last, pairs(text[kept:]), at, span.stop),
        )


documents_by_shard = st.lists(
    st.lists(st.text("ab1_", min_size=1, max_size=8), min_size=1, max_size=6), min_size=1, max_size=4
)


@given(documents_by_shard, st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_splits_are_exact_and_hold_each_character_once_in_its_order(texts: list[list[str]], budgets: list[int]) -> None:
    shards = Shards(texts)
    rest = tuple(shards.everything)
    for budget in budgets:
        taken = take_exactly(rest, budget, shards.lengths, shards.cut)
        spans = [*taken.taken, *taken.rest]
        assert all(span.tokens == pairs(shards.text(span)) and span.documents > 0 for span in spans)
        assert sum(span.tokens for span in taken.taken) == budget - taken.missing
        # The text that is taken or put back comes first in the order; the rest follows, led by the text put back.
        before = shards.places(rest)
        gone = len(before) - len(shards.places(taken.rest[len(taken.put_back) :]))
        assert sorted(shards.places(taken.taken) + shards.places(taken.put_back)) == before[:gone]
        assert shards.places(taken.taken) == sorted(shards.places(taken.taken))
        assert taken.rest[: len(taken.put_back)] == taken.put_back
        assert shards.places(taken.rest[len(taken.put_back) :]) == before[gone:]
        # Documents without tokens are taken only before others: how many there are behind, depends on how far was read.
        if taken.taken and not taken.missing:
            last = taken.taken[-1]
            assert pairs(texts[last.ordinal][last.last - 1][last.start : last.stop]) > 0
        # Something is missing only where all that is left was put back, and that only where it has no cut at what was
        # wanted when its turn came.
        assert not taken.missing or taken.rest == taken.put_back
        for span in taken.put_back:
            before_it = [
                other.tokens for other in taken.taken if (other.ordinal, other.first) < (span.ordinal, span.first)
            ]
            wanted = budget - sum(before_it)
            assert (span.documents, span.tokens > wanted, shards.cut(span, wanted)) == (1, True, None)
        rest = taken.rest


def take(texts: Sequence[Sequence[str]], budget: int) -> tuple[tuple[DocumentSpan, ...], tuple[DocumentSpan, ...]]:
    shards = Shards(texts)
    taken = take_exactly(shards.everything, budget, shards.lengths, shards.cut)
    assert (taken.put_back, taken.missing) == ((), 0)
    return taken.taken, taken.rest


def test_a_budget_that_ends_with_a_document_cuts_none() -> None:
    """The documents before the end are one run: they are copied as they lie, and the next split begins behind them."""
    taken, rest = take([["a", "bb", "aaa", "b", "aa"]], 3)
    assert taken == (DocumentSpan(0, 0, 2, 3),)
    assert rest == (DocumentSpan(0, 2, 3, 3), DocumentSpan(0, 3, 5, 3))


def test_a_shard_is_left_in_one_piece_where_the_budget_ends_with_the_one_before() -> None:
    taken, rest = take([["a", "bb"], ["aaa", "b"]], 3)
    assert (taken, rest) == ((DocumentSpan(0, 0, 2, 3),), (DocumentSpan(1, 0, 2, 4),))


def test_documents_without_tokens_behind_the_last_one_are_left() -> None:
    """How many of them there are, depends on how far was read; they begin the next split if there is one."""
    taken, rest = take([["a", "_", "bb", "_", "__"], ["_", "a"]], 3)
    assert taken == (DocumentSpan(0, 0, 3, 3),)
    assert rest == (DocumentSpan(0, 3, 4, 0), DocumentSpan(0, 4, 5, 0), DocumentSpan(1, 0, 2, 1))
    taken, rest = take([["a", "bb"], ["_", "_"], ["a"]], 3)
    assert (taken, rest) == ((DocumentSpan(0, 0, 2, 3),), (DocumentSpan(1, 0, 2, 0), DocumentSpan(2, 0, 1, 1)))
    taken, rest = take([["_", "_"], ["_", "a", "_"]], 1)
    assert (taken, rest) == ((DocumentSpan(0, 0, 2, 0), DocumentSpan(1, 0, 2, 1)), (DocumentSpan(1, 2, 3, 0),))


def test_where_something_is_missing_all_documents_without_tokens_are_taken() -> None:
    shards = Shards([["a", "_"], ["_"]])
    taken = take_exactly(shards.everything, 2, shards.lengths, shards.cut)
    assert (taken.taken, taken.missing) == ((DocumentSpan(0, 0, 2, 1), DocumentSpan(1, 0, 1, 0)), 1)


def test_nothing_is_taken_for_no_budget() -> None:
    taken, rest = take([["a", "bb"]], 0)
    assert (taken, rest) == ((), (DocumentSpan(0, 0, 2, 3),))


def test_the_first_and_the_last_document_of_a_run_can_be_cut() -> None:
    taken, rest = take([["aaa", "b"]], 2)
    assert taken == (DocumentSpan(0, 0, 1, 2, 0, 2),)
    assert rest == (DocumentSpan(0, 0, 1, 1, 2, None), DocumentSpan(0, 1, 2, 1))
    taken, rest = take([["b", "aaa"], ["a"]], 3)
    assert taken == (DocumentSpan(0, 0, 1, 1), DocumentSpan(0, 1, 2, 2, 0, 2))
    assert rest == (DocumentSpan(0, 1, 2, 1, 2, None), DocumentSpan(1, 0, 1, 1))


def test_a_document_without_a_cut_is_put_back_and_the_next_one_is_cut() -> None:
    shards = Shards([["ab", "11", "ab"]])
    taken = take_exactly(shards.everything, 3, shards.lengths, shards.cut)
    assert taken.put_back == (DocumentSpan(0, 1, 2, 4),)
    assert taken.taken == (DocumentSpan(0, 0, 1, 2), DocumentSpan(0, 2, 3, 1, 0, 1))
    assert taken.rest == (DocumentSpan(0, 1, 2, 4), DocumentSpan(0, 2, 3, 1, 1))
    assert not taken.missing


def test_what_no_document_can_give_is_missing_and_all_are_put_back_in_order() -> None:
    shards = Shards([["a", "11", "22"], ["3"]])
    taken = take_exactly(shards.everything, 2, shards.lengths, shards.cut)
    assert taken.taken == (DocumentSpan(0, 0, 1, 1),)
    assert taken.put_back == (DocumentSpan(0, 1, 2, 4), DocumentSpan(0, 2, 3, 4), DocumentSpan(1, 0, 1, 2))
    assert (taken.rest, taken.missing) == (taken.put_back, 1)


@given(
    st.text("ab 1_", min_size=2, max_size=60) | st.text("a \n", min_size=150, max_size=400),
    st.integers(1, 60),
    st.sampled_from([words, pairs]),
)
def test_the_last_cut_is_the_first_one_of_the_mirrored_text(
    text: str, tokens: int, count: Callable[[str], int]
) -> None:
    """The toy tokenizers count a text and its mirror image alike."""
    kept = find_cut(text[::-1], tokens, count)
    at = find_last_cut(text, tokens, count)
    assert at == (None if kept is None else len(text) - kept)
    assert at is None or (0 < at < len(text) and count(text[at:]) == tokens)


@given(documents_by_shard, st.lists(st.integers(0, 40), min_size=1, max_size=3))
def test_the_last_splits_are_exact_and_the_rest_is_all_that_is_left(texts: list[list[str]], budgets: list[int]) -> None:
    shards = Shards(texts)
    rest = tuple(shards.everything)
    for budget in budgets:
        before = shards.places(rest)
        taken = take_last_exactly(rest, budget, shards.lengths, shards.cut_last)
        spans = [*taken.taken, *taken.rest]
        assert all(span.tokens == pairs(shards.text(span)) and span.documents > 0 for span in spans)
        assert sum(span.tokens for span in taken.taken) == budget - taken.missing
        # Nothing is lost, and nothing is there twice.
        assert sorted(shards.places(spans)) == sorted(before)
        # The text that is taken is in order, and so is the text put back.
        assert [before.index(place) for place in shards.places(taken.taken)] == sorted(
            before.index(place) for place in shards.places(taken.taken)
        )
        assert tuple(span for span in taken.rest if span in taken.put_back) == taken.put_back
        # Something is missing only where no document that is left has fewer tokens, nor a cut.
        assert not taken.missing or taken.rest == taken.put_back
        rest = taken.rest


def take_last(texts: Sequence[Sequence[str]], budget: int) -> tuple[tuple[DocumentSpan, ...], tuple[DocumentSpan, ...]]:
    shards = Shards(texts)
    taken = take_last_exactly(shards.everything, budget, shards.lengths, shards.cut_last)
    assert (taken.put_back, taken.missing) == ((), 0)
    return taken.rest, taken.taken


def test_the_last_documents_are_taken_whole_and_of_the_one_before_its_end() -> None:
    """The beginning of that one ends the rest."""
    rest, taken = take_last([["a", "bb"], ["aaa", "b"]], 3)
    assert rest == (DocumentSpan(0, 0, 2, 3), DocumentSpan(1, 0, 1, 1, 0, 1))
    assert taken == (DocumentSpan(1, 0, 1, 2, 1, None), DocumentSpan(1, 1, 2, 1))
    rest, taken = take_last([["a", "bb"], ["aaa", "b"]], 4)
    assert (rest, taken) == ((DocumentSpan(0, 0, 2, 3),), (DocumentSpan(1, 0, 2, 4),))
    rest, taken = take_last([["a", "bb", "_", "a"]], 1)
    assert rest == (DocumentSpan(0, 0, 1, 1), DocumentSpan(0, 1, 2, 2))
    assert taken == (DocumentSpan(0, 2, 4, 1),)


def test_a_document_whose_end_cannot_be_cut_stays_and_the_one_before_it_is_cut() -> None:
    shards = Shards([["ab", "ba", "11", "b"]])
    taken = take_last_exactly(shards.everything, 2, shards.lengths, shards.cut_last)
    assert taken.put_back == (DocumentSpan(0, 2, 3, 4),)
    assert taken.taken == (DocumentSpan(0, 1, 2, 1, 1, None), DocumentSpan(0, 3, 4, 1))
    # Behind the document that stays is what is left of the one that was cut, so that it ends the split before.
    assert taken.rest == (DocumentSpan(0, 0, 1, 2), DocumentSpan(0, 2, 3, 4), DocumentSpan(0, 1, 2, 1, 0, 1))
    assert not taken.missing
