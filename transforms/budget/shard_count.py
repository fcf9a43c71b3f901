"""The files beside unfinished shards: the counts of each shard, and the budgets of all.

Nothing here needs Beam, so that a command that only looks at unfinished work does not load it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from transforms.checksums import FileMark

TAKEN_OVER = "taken over"
"""The `engine` of a shard that a dataset of another size had finished, which is taken over whole (`build --grow`)."""


@dataclasses.dataclass(frozen=True)
class ShardCount:
    """The counts of one shard, and the marks of its files.

    Attributes:
        ordinal: the shard's place in its dataset, from 0.
        tokens: ids in it, BOS and EOS included.
        documents: documents in it.
        without_tokens: documents that made no token, among these.
        records: ArrayRecord records in it.
        rows: of the source that were read, those that were left out among them.
        text_bytes: UTF-8 bytes of its documents.
        complete: whether all of the shard's rows were read. A shard that stopped early, having met the budget, can be
            the last one of a dataset, and no other.
        skipped: rows left out, by reason.
        attempt: tells this writing of the shard from others; a part of its files' names.
        engine: the encoder, with its version, as "gigatoken 0.10.0"; or `TAKEN_OVER`.
        source: tells the versions of its source files from others, as far as that can be seen without reading them.
        file: its file, as it was written.
        row_file: the file that tells of each row; its checksum stands for the texts that were read.
        quarantine: the file of the rows that were left out, if they are kept and there are any.
        trace: the file of its trace, if it has one.
        with_special: of its documents, those that hold the string of a special token
            (`transforms.encoding.special_strings`); None in ids, and where an earlier version has not counted them.
    """

    ordinal: int
    tokens: int
    documents: int = 0
    without_tokens: int = 0
    records: int = 0
    rows: int = 0
    text_bytes: int = 0
    complete: bool = True
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    attempt: str = ""
    engine: str = ""
    source: str = ""
    file: FileMark = dataclasses.field(default_factory=FileMark)
    row_file: FileMark = dataclasses.field(default_factory=FileMark)
    quarantine: FileMark | None = None
    trace: FileMark | None = None
    with_special: int | None = None

    @property
    def has_rows(self) -> bool:
        """Whether the fate of each of its rows is known, so that it can be cut; not of one that is taken over."""
        return self.engine != TAKEN_OVER

    @property
    def reach(self) -> tuple[bool, int, int, bool, bool]:
        """How far the shard was read, and how much is known of it, to be compared with other counts of it."""
        return self.complete, self.rows, self.tokens, self.has_rows, self.with_special is not None

    def holds_more(self, other: ShardCount) -> bool:
        """Whether more of the shard was read than for the `other`."""
        return self.reach > other.reach


@dataclasses.dataclass(frozen=True)
class Budgets:
    """Tokens by split, so that a reader of unfinished work can tell how much is left.

    Attributes:
        exhausted: whether the build has found that the source does not hold them, and has failed.
    """

    tokens: dict[str, int]
    exhausted: bool = False


@dataclasses.dataclass(frozen=True)
class FinalNames:
    """Final path of each shard that is published whole, by ordinal."""

    names: dict[int, str]
