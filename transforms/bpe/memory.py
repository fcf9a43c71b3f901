"""How much memory training a tokenizer takes, from a sample of its corpus, and how much there is."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import psutil

# For each distinct word. `tokenizers` 0.23 needed 1.1 to 1.3 kB at its peak, while it merged 250,000 to 3,000,000
# random words of 5 to 15 letters; the rest is for words that are not foreseen, up to 39 % in corpora of 80 and 400 MB.
_BYTES_PER_WORD = 2000
_WORD = re.compile(r"\w+|[^\w\s]+")
_PIECE = 1000  # characters


def distinct_words(sample: Sequence[str], text_bytes: int) -> int:
    """About how many distinct words a corpus of `text_bytes` has, of which `sample` is a part.

    By Heaps' law (H. S. Heaps, *Information Retrieval*, 1978): their number grows with a power of the text's length,
    here taken from every second piece of the sample against all of it.

    >>> distinct_words(["one two", "six ten"], 1400)
    400
    """
    pieces = [text[start : start + _PIECE] for text in sample for start in range(0, len(text), _PIECE)]
    half, rest = (_words(pieces[start::2]) for start in (0, 1))
    all_words = len(half | rest)
    sample_bytes, half_bytes = (sum(len(piece.encode()) for piece in some) for some in (pieces, pieces[::2]))
    if not half or half_bytes == sample_bytes or text_bytes <= sample_bytes:
        return all_words
    power = math.log(all_words / len(half)) / math.log(sample_bytes / half_bytes)
    return round(all_words * (text_bytes / sample_bytes) ** min(1.0, power))


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in _WORD.findall(text)}


def memory_needed(words: int) -> int:
    """About how many bytes of memory training takes for so many distinct words."""
    return words * _BYTES_PER_WORD


def memory_warning(sample: Sequence[str], text_bytes: int, available: int) -> str | None:
    """A message about a corpus that is likely too large for `available` bytes of memory; None where it fits."""
    needed = memory_needed(distinct_words(sample, text_bytes))
    if needed <= available:
        return None
    fitting = text_bytes
    while fitting > 1_000_000 and memory_needed(distinct_words(sample, fitting)) > available * 0.8:
        fitting //= 2
    return (
        f"the corpus is likely too large for this machine: its {text_bytes / 1e9:.2f} GB of text may need "
        f"{needed / 1e9:.1f} GB of memory for the words, and {available / 1e9:.1f} GB are available; "
        f"--max-bytes {max(1, round(fitting / 1e6))}MB should fit"
    )


def available_memory() -> int:
    """How much memory a process may still take, in bytes: the machine's, or its control group's where that is less."""
    available = int(psutil.virtual_memory().available)
    try:
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as current:
            return min(available, max(0, int(limit.read()) - int(current.read())))
    except (OSError, ValueError):  # no control groups of version 2, or no limit
        return available
