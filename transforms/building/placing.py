"""Final names: how a finished file gets its own, and the state of a folder before its manifest is written."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from transforms.checksums import FileMark
from transforms.dataset.manifest import Manifest, manifest_path, read_manifest
from transforms.errors import BroetchenError
from transforms.files import storage


def put_in_place(source: str, final: str, mark: FileMark) -> None:
    """Gives a file its final name. May be repeated.

    Raises:
        BroetchenError: it is neither under the one name nor, as it was written, under the other.
    """
    try:
        storage.rename(source, final)
    except BroetchenError:
        if storage.exists(source) or not storage.is_whole(final, mark):
            raise


def manifest_of_build(folder: str, fingerprint: str) -> Manifest | None:
    """The manifest in a dataset's folder if it is of this build, as where a runner does a step again after the last.

    Raises:
        BroetchenError: it is damaged.
    """
    manifest = read_manifest(folder)
    return manifest if manifest is not None and manifest.fingerprint == fingerprint else None


def remove_other_manifest(folder: str) -> None:
    """Deletes a manifest that is not of this build, before the first of the files that it tells of is replaced."""
    storage.delete([manifest_path(folder)])


def keep_only(folder: str, marks: Mapping[str, FileMark]) -> None:
    """Deletes the files that older builds left in a folder of the dataset's, and checks the rest by one listing.

    Args:
        folder: below the dataset's, where nothing but these files belongs; it is deleted where there are none.
        marks: see `check_in_place`.

    Raises:
        BroetchenError: something cannot be deleted; a file is gone, or another than was written.
    """
    if not marks:
        storage.delete_tree(folder)
        return
    storage.delete([path for path in storage.list_marks(folder) if posixpath.basename(path) not in marks])
    check_in_place(folder, marks)


def check_in_place(folder: str, marks: Mapping[str, FileMark]) -> None:
    """Checks by one listing that exactly these files lie in a folder, each as it was written.

    Args:
        folder: of the dataset, or of the rows that it left out, or of its traces.
        marks: of the files, by name; those with other extensions are none of the dataset's.

    Raises:
        BroetchenError: one is missing or another, or there are more.
    """
    extensions = {posixpath.splitext(name)[1] for name in marks}
    found = {
        posixpath.basename(path): mark
        for path, mark in storage.list_marks(folder).items()
        if posixpath.splitext(path)[1] in extensions
    }
    for name in sorted(marks.keys() | found.keys()):
        expected, mark = marks.get(name), found.get(name)
        if expected is None or mark is None or storage.differs(mark, expected):
            state = "gone" if mark is None else "not of this build" if expected is None else "another than was written"
            raise BroetchenError(
                f"{posixpath.join(folder, name)}: is {state}, so that no manifest was written; make sure that only one "
                "build writes there, and run it again"
            )
