"""Whether pairs of a corpus occur more often than a trainer can count, and whether it merged the most frequent first.

`tokenizers` 0.23 counts occurrences of a pair in 32 bits with a sign. Beyond 2³¹ - 1 the number becomes negative, and
the pair, the most frequent of all, is never merged; nothing says so.

Merges happen within words, whose bounds only the pre-tokenizer knows. But each occurrence of a pair of tokens is one of
two bytes that follow each other, the last of the one and the first of the other. So no pair occurs more often than the
most frequent pair of bytes, and of those it can be said without words how often they occur at least and at most.
"""

from __future__ import annotations

import json
import string
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from transforms.bpe.styles import TokenizerStyle
from transforms.encoding.splits import byte_characters
from transforms.errors import BroetchenError
from transforms.texts import text_buffers

MOST_OCCURRENCES = 2**31 - 1
"""The most occurrences of a pair that trainers are known to count."""

_SPACE, _NEWLINE, _APOSTROPHE = 0x20, 0x0A, 0x27
_LETTERS = np.frombuffer(string.ascii_letters.encode(), np.uint8)
_PRINTED = np.arange(0x21, 0x7F)
_CONTINUATION = np.arange(0x80, 0xC0)

Counts = npt.NDArray[np.int64]


class PairCounts:
    """How often two bytes follow each other in the documents of a corpus that go by: int64 [256, 256].

    Args:
        style: how the text is normalized.
        expected_bytes: about how much text there is. Where it is so little that no pair can come to `most`, none are
            counted before there has been more. None counts all.
        most: occurrences of a pair that a trainer can count.
    """

    def __init__(self, style: TokenizerStyle, expected_bytes: int | None = None, most: int = MOST_OCCURRENCES) -> None:
        self._style, self._most = style, most
        self._counts = np.zeros((256, 256), np.int64)
        self._documents = self._apostrophes = self._bytes = self._uncounted = 0
        self._is_counting = expected_bytes is None or expected_bytes > most // 2

    def checked(self, batches: Iterable[pa.LargeStringArray]) -> Iterator[pa.LargeStringArray]:
        """The corpus, up to where it has too much of a pair.

        Raises:
            BroetchenError: it has.
        """
        for batch in batches:
            self.add(batch)
            if self._bytes > self._most:
                self._check()
            yield batch

    def add(self, texts: pa.LargeStringArray) -> None:
        """Counts the pairs of some more documents, which are valid UTF-8, without nulls."""
        data, offsets = text_buffers(texts)
        size = int(offsets[-1] - offsets[0])
        self._bytes += size
        self._documents += len(texts)
        if not self._is_counting:
            self._uncounted += size
            self._is_counting = self._bytes > self._most // 2
            return
        if self._style.nfkc:
            # Characters that are newer than this table are too few to matter.
            normalized = [
                text if unicodedata.is_normalized("NFKC", text) else unicodedata.normalize("NFKC", text)
                for text in texts.to_pylist()
            ]
            data, offsets = text_buffers(pa.array(normalized, pa.large_string()))
        data, offsets = data[offsets[0] : offsets[-1]], offsets - offsets[0]
        if len(data) < 2:
            return
        pairs = data[:-1].astype(np.uint16) << 8 | data[1:]
        counts = np.bincount(pairs, minlength=1 << 16)
        inner = offsets[(offsets > 0) & (offsets < len(data))]
        counts -= np.bincount(pairs[np.unique(inner) - 1], minlength=1 << 16)
        self._counts += counts.reshape(256, 256)
        self._apostrophes += int(np.count_nonzero(data == _APOSTROPHE))

    @property
    def at_least(self) -> Counts:
        """How often each two bytes follow each other in a word at least, in all styles.

        The bytes of a character are in one word; so are a space and the letter after it; and two ASCII letters, unless
        a contraction ends between them, for which there is an apostrophe.
        """
        least = np.zeros_like(self._counts)
        least[:, _CONTINUATION] = self._counts[:, _CONTINUATION]
        least[_SPACE, _LETTERS] = self._counts[_SPACE, _LETTERS]
        letters = np.ix_(_LETTERS, _LETTERS)
        least[letters] = np.maximum(0, self._counts[letters] - self._apostrophes)
        return least

    @property
    def at_most(self) -> Counts:
        """The same at most: a word ends between printed ASCII and a space, and between a newline and printed ASCII.

        A style may put a space before each document.
        """
        most = self._counts.copy()
        most[_PRINTED, _SPACE] = 0
        most[_NEWLINE, _PRINTED] = 0
        most[_SPACE] += self._documents if self._style.prefix_space else 0
        return most + self._uncounted

    def most_frequent(self) -> tuple[bytes, int]:
        """The pair of bytes that surely is the most frequent, and how often it occurs at least."""
        least = self.at_least
        place = int(least.argmax())
        return bytes(divmod(place, 256)), int(least.flat[place])

    def _check(self) -> None:
        pair, occurrences = self.most_frequent()
        if occurrences > self._most:
            raise BroetchenError(
                f"the pair {pair_text(pair)} occurs more than {self._most:,} times, after {self._bytes / 1e9:.2f} GB "
                "of the corpus: trainers count no further, and would merge other pairs without a word; nothing "
                f"was written; take less text, by --max-bytes {fitting(self._bytes * self._most // occurrences)}"
            )

    def doubt(self) -> str | None:
        """Why it is not certain that a trainer could count all pairs; None where it is."""
        most = int(self.at_most.max())
        if self._bytes <= self._most or most <= self._most:
            return None
        return (
            f"a pair may occur up to {most:,} times in words, and trainers count to {self._most:,}; if it does, it was "
            "not merged: look whether the first tokens of the vocabulary are the most frequent ones, or take less text "
            "by --max-bytes"
        )

    def check_merges(self, tokenizer: Tokenizer) -> None:
        """Checks that the first merge is that of the most frequent pair, as far as counts of bytes can tell.

        Raises:
            BroetchenError: another pair surely occurs more often.
        """
        first = first_merge(tokenizer)
        if first is None:
            return
        pair, occurrences = self.most_frequent()
        merged = int(self.at_most[first[0], first[1]])
        if occurrences > merged:
            raise BroetchenError(
                f"the first merge is of {pair_text(first)}, which occurs at most {merged:,} times, though "
                f"{pair_text(pair)} occurs {occurrences:,} times: the trainer has counted wrongly; nothing was "
                "written; take less text by --max-bytes, and report it with the corpus"
            )


def first_merge(tokenizer: Tokenizer) -> bytes | None:
    """The two bytes that a byte-level BPE tokenizer merges first; None where it merges nothing."""
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    if not merges:
        return None
    characters = byte_characters()
    return bytes(characters.index(character) for character in merges[0])


def overflow_warning(
    style: TokenizerStyle, sample: Sequence[str], text_bytes: int, most: int = MOST_OCCURRENCES
) -> str | None:
    """A message about a corpus of `text_bytes` that is likely too large, by a sample of it; None if it is not.

    Args:
        style: of the tokenizer.
        sample: some of its documents.
        text_bytes: of all of it.
        most: occurrences of a pair that a trainer can count.
    """
    counts = PairCounts(style)
    counts.add(pa.array(sample, pa.large_string()))
    pair, occurrences = counts.most_frequent()
    sampled = sum(len(text.encode()) for text in sample)
    if occurrences * text_bytes <= most * sampled:
        return None
    return (
        f"the corpus is likely too large to train on: its {text_bytes / 1e9:.2f} GB of text may have the pair "
        f"{pair_text(pair)} some {occurrences * text_bytes // sampled:,} times, and trainers count to {most:,}; the "
        f"command ends where that is passed; --max-bytes {fitting(most * sampled // occurrences)} should fit"
    )


def fitting(text_bytes: int) -> str:
    """A little less than so much text, as `--max-bytes` takes it.

    >>> fitting(70_000_000_000)
    '63000MB'
    """
    return f"{max(1, text_bytes * 9 // 10_000_000)}MB"


def pair_text(pair: bytes) -> str:
    """Two bytes for a message: as text where they are such.

    >>> pair_text(b" t"), pair_text(b"\\xc3\\xa4"), pair_text(b"\\xa4 ")
    ("' t'", "'ä'", 'a4 20 (hexadecimal)')
    """
    try:
        return repr(pair.decode())
    except UnicodeDecodeError:
        return f"{pair.hex(' ')} (hexadecimal)"
