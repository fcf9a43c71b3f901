"""Ids back to text, piece by piece: which ids stand for which characters."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from transforms.dataset.reader import check_ids


def token_pieces(tokenizer: Tokenizer, ids: Iterable[int]) -> list[tuple[str, tuple[int, ...]]]:
    """The text of ids, cut at tokens; ids that only together make up a character are one piece.

    Ids at the end that are no whole character are left out, as those are whose text is empty.

    Returns:
        (text, ids) of each piece; special tokens stand as their names.

    Raises:
        BroetchenError: an id is none that any tokenizer has.
    """
    ids = list(ids)
    check_ids(ids)
    stream = DecodeStream(skip_special_tokens=False)
    pieces: list[tuple[str, tuple[int, ...]]] = []
    waiting: list[int] = []
    for token in ids:
        waiting.append(token)
        if text := stream.step(tokenizer, token):
            pieces.append((text, tuple(waiting)))
            waiting = []
    return pieces
