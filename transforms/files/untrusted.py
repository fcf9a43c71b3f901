"""Files that come from anywhere: they are regular ones, of a bounded size, and their JSON holds no surprise.

A local file of an expected name may be a link to something else, a FIFO or a device, which is read for
ever. An object of a store is always a file.
"""

from __future__ import annotations

import json
import os
import re
import stat
from typing import Any, NoReturn

from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.errors import explain_file_errors

# Of JSON, over all of it: a file that `json.dumps` indents has fewer in 256 MiB, and one of brackets alone would take
# gigabytes as objects.
_MOST_CONTAINERS = 1 << 22
_MOST_VALUES = 1 << 24
# Of one object. The faults of each would be found, and take more than the object itself.
_MOST_KEYS = 10_000
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def check_regular(path: str, *, within: str | None = None) -> None:
    """Checks, before a file is opened that a manifest names, that it is a regular file and no link.

    A file that is not there passes: its reader says so.

    Args:
        path: the file; one that is not local passes.
        within: a folder that it has to be in or below, by whatever links; None checks the name alone.

    Raises:
        BroetchenError: it is a link, a folder, a FIFO, a socket or a device, or it leads out of `within`.
    """
    if not storage.is_local(path):
        return
    with explain_file_errors(path, "looked up"):
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISREG(mode):
            raise _irregular(path, mode)
        if within is not None:
            root, folder = os.path.realpath(within), os.path.realpath(os.path.dirname(path) or ".")
            if os.path.commonpath([root, folder]) != root:
                raise BroetchenError(f"{path}: leads out of {within}, by a link to another folder; put a copy there")


def read_bounded(path: str, most_bytes: int) -> bytes:
    """All of a regular file of at most `most_bytes`; nothing is read of another.

    Raises:
        BroetchenError: it cannot be read, is larger, or is none.
    """
    if not storage.is_local(path):
        if (size := storage.size(path)) > most_bytes:
            raise _too_large(path, size, most_bytes)
        return storage.read_bytes(path)
    check_regular(path)
    # Another file may have come there since: opening a FIFO does not wait, and no link is followed.
    with (
        explain_file_errors(path, "read"),
        os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file,
    ):
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _irregular(path, status.st_mode)
        data = b"" if status.st_size > most_bytes else file.read(most_bytes + 1)
        if (size := max(status.st_size, len(data))) > most_bytes:
            raise _too_large(path, size, most_bytes)
    return data


def _irregular(path: str, mode: int) -> BroetchenError:
    kinds = {
        stat.S_IFLNK: "a link, which is not followed",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    kind = kinds.get(stat.S_IFMT(mode), "a device")
    return BroetchenError(f"{path}: not a regular file but {kind}; put the file itself there")


def _too_large(path: str, size: int, most_bytes: int) -> BroetchenError:
    return BroetchenError(f"{path}: {size:,} bytes, more than the {most_bytes:,} that are read; is it the right file?")


def parse_json(data: bytes) -> Any:
    """JSON in UTF-8, in which each key stands once, all text is text, and no number is NaN or Infinity by name.

    Raises:
        ValueError: it is not that, is nested thousands deep, or has tens of millions of parts; the message, which shows
            nothing of the content, is to stand in one of ours.
    """
    if data.count(b"[") + data.count(b"{") > _MOST_CONTAINERS or data.count(b",") > _MOST_VALUES:
        raise ValueError("Invalid JSON: too many parts")
    try:
        parsed = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
        if _SURROGATE.search(data):
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"Invalid JSON: not UTF-8 at byte {error.start}") from error
    except UnicodeEncodeError as error:
        raise ValueError("Invalid JSON: half of a surrogate pair in a text") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"Invalid JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("Invalid JSON: nested too deep") from error
    return parsed


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > _MOST_KEYS:
        raise ValueError("Invalid JSON: too many keys in one object")
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("Invalid JSON: a key stands twice in one object")
    return found


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"Invalid JSON: {constant} is no number")
