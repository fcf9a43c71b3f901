"""Cutting text at an exact number of tokens."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transforms.budget.text_cut import DocumentSpan, find_cut, take_exactly


def words(text: str) -> int:
    """A toy tokenizer: one token a word, whatever the spaces."""
    return len(text.split())


def pairs(text: str) -> int:
    """A toy tokenizer with two tokens for each digit, so that some counts have no cut."""
    return sum(2 if character.isdigit() else 1 for character in text)


@given(st.text("ab 1", min_size=2, max_size=60), st.integers(1, 40), st.sampled_from([words, pairs]))
def test_a_cut_has_the_tokens_and_is_found_where_there_is_one(text: str, tokens: int, count: object) -> None:
    assert callable(count)
    found = find_cut(text, tokens, count)
    possible = [kept for kept in range(1, len(text)) if count(text[:kept]) == tokens]
    if found is None:
        # Texts here are shorter than the window, so nothing may be missed.
        assert not possible
    else:
        assert found in possible


documents_by_shard = st.lists(
    st.lists(st.text("ab1", min_size=1, max_size=8), min_size=1, max_size=6), min_size=1, max_size=4
)


@given(documents_by_shard, st.integers(0, 60), st.integers(0, 20))
def test_splits_are_exact_disjoint_and_lose_nothing(shards: list[list[str]], train: int, evaluation: int) -> None:
    lengths = {ordinal: np.array([pairs(text) for text in texts]) for ordinal, texts in enumerate(shards)}

    def text_of(span: DocumentSpan) -> list[str]:
        return [text[span.start : span.stop] for text in shards[span.ordinal][span.first : span.last]]

    def cut(span: DocumentSpan, tokens: int) -> tuple[DocumentSpan, DocumentSpan] | None:
        (text,) = text_of(span)
        kept = find_cut(text, tokens, pairs)
        if kept is None:
            return None
        end = None if span.stop is None else span.stop
        return (
            DocumentSpan(span.ordinal, span.first, span.last, tokens, span.start, span.start + kept),
            DocumentSpan(span.ordinal, span.first, span.last, pairs(text[kept:]), span.start + kept, end),
        )

    everything = [DocumentSpan(o, 0, len(texts), int(lengths[o].sum())) for o, texts in enumerate(shards)]
    first = take_exactly(everything, train, lengths.__getitem__, cut)
    second = take_exactly(first.rest, evaluation, lengths.__getitem__, cut)
    for taken, budget in ((first, train), (second, evaluation)):
        spans_total = sum(pairs(text) for span in taken.taken for text in text_of(span))
        assert spans_total == sum(span.tokens for span in taken.taken) == budget - taken.missing
        # Something is missing only where nothing that is left has a cut.
        assert not taken.missing or all(pairs(text) > taken.missing for span in taken.rest for text in text_of(span))
    # Every character is in exactly one place.
    pieces = [span for part in (first.taken, second.taken, second.rest) for span in part]
    assert sorted("".join(text for span in pieces for text in text_of(span))) == sorted(
        "".join(text for texts in shards for text in texts)
    )


def test_a_document_without_a_cut_is_put_back_and_the_next_one_is_cut() -> None:
    texts = ["ab", "11", "ab"]

    def cut(span: DocumentSpan, tokens: int) -> tuple[DocumentSpan, DocumentSpan] | None:
        kept = find_cut(texts[span.first], tokens, pairs)
        if kept is None:
            return None
        return DocumentSpan(0, span.first, span.last, tokens, 0, kept), DocumentSpan(0, span.first, span.last, 1, kept)

    taken = take_exactly([DocumentSpan(0, 0, 3, 8)], 3, lambda _: np.array([2, 4, 2]), cut)
    assert taken.put_back == (DocumentSpan(0, 1, 2, 4),)
    assert taken.taken == (DocumentSpan(0, 0, 1, 2), DocumentSpan(0, 2, 3, 1, 0, 1))
    assert taken.rest == (DocumentSpan(0, 1, 2, 4), DocumentSpan(0, 2, 3, 1, 1))
    assert not taken.missing
