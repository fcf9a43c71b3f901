"""Leaves words out of a corpus that are too long to train on: merging takes quadratic time in the length of a word.

Words are those of the style's pre-tokenizer, such as runs of letters. `tokenizers` 0.23 took 26 s for one of
300,000 letters, as it goes through all of a word for each pair that is merged in it. Words of languages, and sentences
of those that are written without spaces, are far shorter than the limit; longer ones are data, such as a genome.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.bpe.styles import TokenizerStyle
from transforms.segments.code_points import documents_at
from transforms.texts import text_buffers

MOST_BYTES = 4096
"""The bytes of the longest word that is trained on."""

# No character becomes more than eleven times as many bytes in NFKC: U+FDFA, of 3 bytes, becomes 33.
_NFKC_GROWTH = 11

_SPACE, _NEWLINE = 0x20, 0x0A
_IS_PRINTED = np.zeros(256, np.bool_)  # ASCII, and no white space
_IS_PRINTED[0x21:0x7F] = True
_BEGINS_WORD = _IS_PRINTED.copy()
_BEGINS_WORD[0xE4:0xF5] = True  # first bytes of characters none of which is white space


type _Word = tuple[str, tuple[int, int]]
"""A word, and where in the text it begins and ends."""


class WithoutLongWords:
    """The documents of a corpus without the words of more than `most_bytes` bytes.

    The text before such a word and the text after it become documents of their own; all others stay as they are.

    Args:
        style: its pre-tokenizer makes the words.
        batches: the corpus.
        most_bytes: of the longest word that stays.

    Attributes:
        words: how many were left out so far.
        bytes: of their UTF-8.
    """

    def __init__(
        self, style: TokenizerStyle, batches: Iterable[pa.LargeStringArray], most_bytes: int = MOST_BYTES
    ) -> None:
        self._style, self._batches, self._most = style, batches, most_bytes
        self._pre_tokenizer = style.untrained().pre_tokenizer
        self.words = self.bytes = 0

    def __iter__(self) -> Iterator[pa.LargeStringArray]:
        for batch in self._batches:
            # A character that is normalized may become several.
            doubtful = _with_gap(batch, self._most // _NFKC_GROWTH if self._style.nfkc else self._most)
            changed = {index: parts for index in doubtful.tolist() if (parts := self._parts(batch[index].as_py()))}
            if not changed:
                yield batch
                continue
            texts = batch.to_pylist()
            kept = [part for index, text in enumerate(texts) for part in changed.get(index, [text])]
            yield pa.array(kept, pa.large_string())

    def _parts(self, text: str) -> list[str] | None:
        """The text between the long words of a document; None where it has none."""
        text = self._style.given_back(text)
        if not len(_with_gap(pa.array([text], pa.large_string()), self._most)):
            return None
        parts: list[str] = []
        kept: list[_Word] = []
        has_long_words = False
        for word in self._pre_tokenizer.pre_tokenize_str(text):
            # Each byte is one character of it.
            if len(word[0]) > self._most:
                self.words, self.bytes, has_long_words = self.words + 1, self.bytes + len(word[0]), True
                parts += self._texts_of(text, kept)
                kept = []
            else:
                kept.append(word)
        # A document of nothing else is still one.
        return ([*parts, *self._texts_of(text, kept)] or [""]) if has_long_words else None

    def _texts_of(self, text: str, words: Sequence[_Word]) -> Iterator[str]:
        """Parts of a text that are split into just these words of it, which stand in a row.

        Mostly that is one. Without the word that followed, white space at an end may be split in another way.
        """
        while words:
            part = text[words[0][1][0] : words[-1][1][1]]
            own = [word for word, _ in self._pre_tokenizer.pre_tokenize_str(part)]
            pairs = zip(own, words, strict=False)
            alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1][0], pairs))
            if len(words) == 1 or alike == len(words) == len(own):
                yield part
                return
            cut = min(max(1, alike), len(words) - 1)
            yield from self._texts_of(text, words[:cut])
            words = words[cut:]


def _with_gap(texts: pa.LargeStringArray, most: int) -> npt.NDArray[np.int64]:
    """The documents in which two places where surely a word ends are more than `most` bytes apart: int64, by index.

    Those places are before a space that follows a printed ASCII character, and after a newline that such a character
    follows, or one that begins with a byte from E4 on: no style has both in one word.
    """
    data, offsets = text_buffers(texts)
    if not len(data) or int(np.diff(offsets).max(initial=0)) <= most:
        return np.empty(0, np.int64)
    data, offsets = data[offsets[0] : offsets[-1]], offsets - offsets[0]
    ends = np.zeros(len(data) + 1, np.bool_)
    ends[1:-1] = (_IS_PRINTED[data[:-1]] & (data[1:] == _SPACE)) | ((data[:-1] == _NEWLINE) & _BEGINS_WORD[data[1:]])
    ends[offsets] = True
    places = np.flatnonzero(ends)
    return np.unique(documents_at(offsets, places[:-1][np.diff(places) > most]))
