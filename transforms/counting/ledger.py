"""A ledger of counts, so that no source is counted twice.

A ledger is a folder. Each file in it holds the counts of some row groups of one source file under one tokenizer, and
lies in a subfolder named by the hash of `Counted`, which says of what:

    <ledger>/<hash>/<first row group>-<last row group>.json

Files are written whole or not at all, one as soon as its row groups are counted, so that a job that is killed goes on
where it was. They can be deleted, copied and merged at will. An entry is used only if it is sound: a regular
file of a bounded size, whose own checksum, the rows that the source's footer names, and its histograms all agree.
Anything else is counted again. That somebody has written a false count, and its checksum, it does not show.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import logging
import posixpath
from collections.abc import Mapping
from typing import Any

from transforms.counting.text_count import TextCount
from transforms.errors import BroetchenError, one_line
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.files.untrusted import parse_json, read_bounded
from transforms.parquet.footer import SourceFile
from transforms.parquet.row_filter import RowFilter
from transforms.tokenizer.spec import TokenizerSpec

_LOGGER = logging.getLogger(__name__)

_FORMAT = "broetchen-counts"
# Changes whenever entries of before would be read wrongly, or hold other counts.
_FORMAT_VERSION = 1

_MOST_BYTES = 256 << 20
_MOST_SAID = 100


@dataclasses.dataclass(frozen=True)
class Counted:
    """The key of a count: all that it depends on. The folder is not in it, so that a copy of the source is known.

    Attributes:
        name: of the source file, without its folder.
        size: of the file in bytes.
        footer_sha256: of its footer, which has the size, place and statistics of all its pages.
        special_tokens: the fate of the names of special tokens in a text.
        tokenizers: the version of the library, which decides by definition the tokens of a text.
        rows: the filter on the source's rows, as JSON; "" for none.
    """

    name: str
    size: int
    footer_sha256: str
    text_column: str
    tokenizer_sha256: str
    special_tokens: str
    tokenizers: str
    rows: str = ""

    @classmethod
    def of(
        cls, source: SourceFile, text_column: str, tokenizer: TokenizerSpec, rows: RowFilter | None = None
    ) -> Counted:
        return cls(
            storage.split(source.path)[1],
            source.size,
            source.footer_sha256,
            text_column,
            tokenizer.sha256,
            tokenizer.special_tokens,
            importlib.metadata.version("tokenizers"),
            rows.identity if rows else "",
        )

    @property
    def plain(self) -> dict[str, Any]:
        """As plain JSON types, as entries have it; where there is no filter, as they had it before there were any."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "rows" or value}

    @functools.cached_property
    def key(self) -> str:
        return digest(self.plain)[:32]


class _UnsoundError(Exception):
    """The fault of an entry, to stand after its path."""


@dataclasses.dataclass(frozen=True)
class CountLedger:
    """A folder of counts, on any filesystem that Beam knows; it need not be there yet."""

    folder: str

    def find(self, counted: Counted, source: SourceFile) -> dict[int, TextCount]:
        """The counts that are known of a source's row groups, by the number of the row group.

        An entry that is damaged, or is about something else, is left out with a warning.

        Raises:
            BroetchenError: the folder cannot be listed.
        """
        found: dict[int, TextCount] = {}
        for path, _ in list_files(posixpath.join(self.folder, counted.key), "*.json"):
            try:
                found |= _read(path, counted, source)
            except (_UnsoundError, BroetchenError) as error:
                _LOGGER.warning("%s: not used, and counted again: %s", path, error)
        return found

    def add(self, counted: Counted, counts: Mapping[int, TextCount]) -> None:
        """Writes down the counts of some row groups, at least one.

        Raises:
            BroetchenError: the entry cannot be written.
        """
        body = {
            "counted": counted.plain,
            "row_groups": [{"row_group": group, **count.to_plain()} for group, count in sorted(counts.items())],
        }
        entry = {"format": _FORMAT, "format_version": _FORMAT_VERSION, "sha256": digest(body), **body}
        name = f"{min(counts):05d}-{max(counts):05d}.json"
        data = json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode()
        storage.write_bytes(posixpath.join(self.folder, counted.key, name), data)


def digest(value: Any) -> str:
    """The checksum of a part of an entry: SHA-256, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _read(path: str, counted: Counted, source: SourceFile) -> dict[int, TextCount]:
    try:
        entry = parse_json(read_bounded(path, _MOST_BYTES))
    except ValueError as error:
        raise _UnsoundError("it is not JSON, or cut short") from error
    if not isinstance(entry, dict) or entry.get("format") != _FORMAT:
        raise _UnsoundError("it is not an entry of a ledger")
    if entry.get("format_version") != _FORMAT_VERSION:
        raise _UnsoundError(
            f"its format is of version {_shortened(entry.get('format_version'))}, not {_FORMAT_VERSION}"
        )
    body = {key: entry.get(key) for key in ("counted", "row_groups")}
    try:
        if entry.get("sha256") != digest(body):
            raise _UnsoundError("its checksum is wrong: it is damaged, or was changed by hand")
    except RecursionError as error:
        raise _UnsoundError("it is nested too deep") from error
    if body["counted"] != counted.plain:
        raise _UnsoundError("it is about another source file or tokenizer")
    items = body["row_groups"]
    if not isinstance(items, list) or not all(isinstance(item, dict) and "row_group" in item for item in items):
        raise _UnsoundError("its row groups are not a list of counts")
    try:
        return {item["row_group"]: _row_group(item, source) for item in items}
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise _UnsoundError(_shortened(error)) from error


def _shortened(value: object) -> str:
    """A part of an entry, or its fault, to stand in a message."""
    said = one_line(value)
    return said if len(said) <= _MOST_SAID else f"{said[:_MOST_SAID]}…"


def _row_group(item: Mapping[str, Any], source: SourceFile) -> TextCount:
    count, group = TextCount.from_plain(item), item["row_group"]
    if type(group) is not int or group < 0:
        raise ValueError(f"{group!r} is no row group")
    rows = source.row_groups[group].rows
    told = count.documents + (count.skipped or 0) + (count.filtered or 0)
    if count.text_bytes is None or count.lengths is None or told != rows:
        raise ValueError(f"it does not count the {rows:,} rows of row group {group}")
    return count
