"""Documents that are kept out of a training, to check the tokenizer on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

HELD_OUT_EVERY = 100
"""Of so many documents, the last is kept out, as long as these make no more than 16 MiB of text."""

_MOST_BYTES = 16 << 20


class HeldOut:
    """Every hundredth document of a stream, taken out of it and kept, as long as they make no more than 16 MiB.

    Attributes:
        texts: those documents, as far as the stream has been read.
        bytes: of their UTF-8.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.bytes = 0
        self._seen = 0

    def kept_out(self, batches: Iterable[pa.LargeStringArray]) -> Iterator[pa.LargeStringArray]:
        """The stream without them."""
        for batch in batches:
            first = HELD_OUT_EVERY - 1 - self._seen % HELD_OUT_EVERY
            self._seen += len(batch)
            out = [index for index in range(first, len(batch), HELD_OUT_EVERY) if self._keep(batch[index].as_py())]
            starts = [0, *(index + 1 for index in out)]
            pieces = [batch.slice(a, b - a) for a, b in zip(starts, [*out, len(batch)], strict=True)]
            yield pa.concat_arrays(pieces) if out else batch

    def _keep(self, text: str) -> bool:
        size = len(text.encode())
        fits = self.bytes + size <= _MOST_BYTES
        if fits:
            self.texts.append(text)
            self.bytes += size
        return fits
