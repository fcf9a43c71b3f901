"""Which files there are: below a folder of a known name, or by a glob pattern that somebody wrote.

The two are kept apart. A folder's name is a name, brackets, stars and all, and only the search in it is a
pattern (`transforms.patterns`). The matches of a pattern are files that can be opened: anything else is an error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from transforms.errors import BroetchenError, did_you_mean, listed, without_controls
from transforms.files import gcs_objects, hub_path, storage
from transforms.files.errors import explain_file_errors
from transforms.files.untrusted import read_bounded
from transforms.patterns import ANY_FOLDERS, divided, has_braces, is_wild, matches, matches_name, quoted, unquoted

if TYPE_CHECKING:
    from apache_beam.io.filesystem import FileMetadata

_MANIFEST, _WORK, _BELOW = "manifest.json", ".broetchen", ("_quarantine", "_trace")
_PARQUET = ".parquet"
# The beginning of a manifest of ours, which has its format first.
_OURS, _HEAD_BYTES, _MOST_BYTES = b'"broetchen-dataset"', 100, 256 << 20


@dataclasses.dataclass(frozen=True)
class Found:
    """A file, with its facts in a listing.

    Attributes:
        bytes: its size.
        modified: when it was last written, in seconds since 1970; 0 where the filesystem does not tell. An object store
            tells when it got the object under this name: a rename there is a copy.
    """

    path: str
    bytes: int
    modified: float = 0.0


def list_files(folder: str, pattern: str = ANY_FOLDERS) -> list[tuple[str, int]]:
    """The files below a folder that match a pattern, as (path, size in bytes), in the order of their paths.

    Wildcards take hidden names, links to folders are not followed, and links that lead nowhere have the size 0.

    Args:
        folder: its name, as it is.
        pattern: of paths below it; by default all files.

    Raises:
        BroetchenError: they cannot be listed.
    """
    return [(found.path, found.bytes) for found in look_through(folder, pattern)]


def look_through(folder: str, pattern: str = ANY_FOLDERS) -> list[Found]:
    """The same with times, see `list_files`."""
    parts = pattern.split("/")
    with explain_file_errors(folder, "listed"):
        if storage.is_local(folder):
            names = dict.fromkeys(_walk(folder, parts, (), ours=True))
            return sorted(_tell(names), key=lambda found: found.path)
        return _matching(_listed(folder, parts), folder, parts, hidden=True)


def expand(pattern: str) -> list[Found]:
    """The files that a pattern names, in the order of their paths; a file of that very name goes before a pattern.

    Raises:
        BroetchenError: it matches nothing, or a folder where a file is meant, or a path that cannot be opened, or files
            of a dataset that was built; a name is not UTF-8; or it cannot be listed.
        UsageError: it is no pattern.
    """
    if "\0" in pattern:
        raise BroetchenError(f"{without_controls(pattern)}: no path holds a character NUL")
    folder, parts = divided(pattern)
    name, built = unquoted(pattern), set[str]()
    with explain_file_errors(pattern, "listed"):
        if storage.is_local(pattern):
            there = [name] if os.path.lexists(name) else list(dict.fromkeys(_walk(folder, parts, (), ours=False)))
            files = list(_opened(pattern, there))
            built = {above for above in _above(files, folder) if _is_built(above)}
        elif storage.exists(name):
            files = [Found(name, storage.size(name))]
        elif is_wild(pattern):
            listed = _listed(folder, parts)
            files = _matching(listed, folder, parts, hidden=False)
            described = {posixpath.dirname(file.path) for file in listed if posixpath.basename(file.path) == _MANIFEST}
            built = {above for above in described & _above(files, folder) if _is_built(above)}
        elif _listed(name, ["*"]):
            raise _a_folder(pattern, name)
        else:
            files = []
    if built:
        raise BroetchenError(
            f"{pattern}: also matches files of {min(built)}, a dataset that was built; have it match the source alone, "
            "or name that folder without wildcards"
        )
    if not files:
        raise BroetchenError(f"{pattern}: no file matches; {_advice(pattern)}")
    return sorted(files, key=lambda file: file.path)


def _advice(pattern: str) -> str:
    if has_braces(pattern):
        return "braces are not taken: write a list of patterns, one for each"
    folder = posixpath.dirname(pattern)
    if is_wild(folder) and storage.is_local(folder) and os.path.isdir(folder):
        return "[…] stands for one of the characters in it: write [[] for a [ that is part of a name"
    if storage.is_local(folder):
        return _what_is_there(*divided(pattern))
    return "check the path, and that you may read it"


def _what_is_there(folder: str, parts: Sequence[str]) -> str:
    """A hint where no file of this machine matches: the last folder of the path that exists."""
    whole = posixpath.join(folder, unquoted(parts[0])) if len(parts) == 1 and not is_wild(parts[0]) else folder
    there, missing = whole, ""
    while there and not os.path.lexists(there):
        above = posixpath.dirname(there.rstrip("/"))
        there, missing = above, posixpath.basename(there.rstrip("/"))
    shown = without_controls(there) or "the working directory"
    try:
        names = sorted(os.listdir(there or "."))
    except OSError as error:
        return f"{shown} cannot be listed ({error.strerror}); check the path, and that you may read it"
    if missing:
        near = did_you_mean(missing, names)
        return f"there is no {without_controls(missing)} in {shown}; {without_controls(near) or 'check the path'}"
    what = listed(map(without_controls, names), 3) if names else "nothing"
    return f"in {shown} there is {what}; check the pattern"


def _a_folder(pattern: str, name: str) -> BroetchenError:
    said = "is" if name == unquoted(pattern) else f"matches {name}, which is"
    return BroetchenError(f"{pattern}: {said} a folder; write {quoted(name).rstrip('/')}/*.parquet for the files in it")


def _opened(pattern: str, paths: Iterable[str]) -> Iterator[Found]:
    """The files among the matches of a pattern on this machine; a match that is neither file nor folder is an error."""
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError as error:
            shown = os.fsencode(path).decode("utf-8", "backslashreplace")
            raise BroetchenError(f"{shown}: its name is not UTF-8, and cannot be written down; rename it") from error
        try:
            about = os.stat(path)
        except FileNotFoundError as error:
            if not os.path.islink(path):
                raise BroetchenError(f"{path}: is gone since it was listed; run it again") from error
            raise BroetchenError(
                f"{path}: is a link to {os.readlink(path)}, where nothing is; put the file there, or delete the link"
            ) from error
        if stat.S_ISDIR(about.st_mode):
            if path == unquoted(pattern) or path.endswith(_PARQUET):
                raise _a_folder(pattern, path)
        elif not stat.S_ISREG(about.st_mode):
            raise BroetchenError(f"{path}: is no regular file, and matches {pattern}; name the files themselves")
        else:
            yield Found(path, about.st_size, about.st_mtime)


def _above(found: Iterable[Found], folder: str) -> set[str]:
    """The folders that files are in, and those above a quarantine or trace; not the one that a pattern names itself."""
    folders = {posixpath.dirname(one.path) for one in found}
    folders |= {posixpath.dirname(one) for one in folders if posixpath.basename(one) in _BELOW}
    return folders - {folder.rstrip("/")}


def _is_built(folder: str) -> bool:
    """Whether there is a dataset of ours, or begun work: others have files of that name."""
    if storage.is_local(folder) and os.path.isdir(posixpath.join(folder, _WORK)):
        return True
    manifest = posixpath.join(folder, _MANIFEST)
    try:
        return storage.exists(manifest) and _OURS in read_bounded(manifest, _MOST_BYTES)[:_HEAD_BYTES]
    except BroetchenError:  # no regular file, or too large
        return False


def _walk(folder: str, parts: Sequence[str], above: Sequence[tuple[int, int]], *, ours: bool) -> Iterator[str]:
    """The paths below a folder of this machine that match.

    Args:
        above: device and inode of the folders that ``**`` has led through, so that it runs in no circle.
        ours: whether it is a folder of our own, in which hidden names count and no link to a folder is followed.
    """
    first, rest = parts[0], parts[1:]
    if not is_wild(first):
        path = posixpath.join(folder, unquoted(first))
        if not rest:
            if os.path.lexists(path):
                yield path
        elif not (ours and os.path.islink(path)):
            yield from _walk(path, rest, above, ours=ours)
        return
    try:
        about = os.stat(folder or ".")
        with os.scandir(folder or ".") as entries:
            names = [(entry.name, entry.is_dir(follow_symlinks=not ours)) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return
    here = (about.st_dev, about.st_ino)
    if first == ANY_FOLDERS:
        if here in above:
            return
        if rest:
            yield from _walk(folder, rest, above, ours=ours)
        for name, is_folder in names:
            if ours or not name.startswith("."):
                path = posixpath.join(folder, name)
                if is_folder:
                    yield from _walk(path, parts, (*above, here), ours=ours)
                elif not rest:
                    yield path
        return
    for name, is_folder in names:
        if matches_name(first, name, hidden=ours):
            path = posixpath.join(folder, name)
            if not rest:
                yield path
            elif is_folder:
                yield from _walk(path, rest, above, ours=ours)


def _tell(paths: Iterable[str]) -> Iterator[Found]:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            try:
                about = os.stat(path)
            except FileNotFoundError:
                os.lstat(path)
                yield Found(path, 0)
            else:
                if not stat.S_ISDIR(about.st_mode):
                    yield Found(path, about.st_size, about.st_mtime)


def _listed(folder: str, parts: Sequence[str]) -> list[FileMetadata]:
    """The files of a store below a folder, as far as a pattern of these parts may look."""
    root, deep = _as_prefix(folder), len(parts) > 1 or parts[0] == ANY_FOLDERS
    scheme = storage.scheme(folder)
    if scheme == "gs":
        return list(gcs_objects.list_below(root, deep=deep))
    filesystem: Any = storage.filesystem(folder)
    if scheme == hub_path.SCHEME:
        return list(filesystem.list_below(root, deep=deep))
    return list(filesystem.match([f"{storage.as_beam_pattern(root)}**"])[0].metadata_list)


def _as_prefix(folder: str) -> str:
    return folder if folder.endswith("/") else f"{folder}/"


def _matching(listed: Iterable[FileMetadata], folder: str, parts: Sequence[str], *, hidden: bool) -> list[Found]:
    root = _as_prefix(folder)
    found = [
        Found(one.path, int(one.size_in_bytes), float(one.last_updated_in_seconds or 0))
        for one in listed
        # Consoles make objects whose names end so, to show a folder.
        if one.path.startswith(root) and not one.path.endswith("/")
        if matches(parts, one.path.removeprefix(root).split("/"), hidden=hidden)
    ]
    return sorted(found, key=lambda one: one.path)
