"""The findings of a check of a dataset, and the check that all files have in common: size and SHA-256."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from typing import Literal

from transforms.coders import register_json_coder
from transforms.errors import BroetchenError, one_line
from transforms.files import storage
from transforms.files.errors import explain_file_errors
from transforms.files.untrusted import check_regular


@register_json_coder
@dataclasses.dataclass(frozen=True, order=True)
class Finding:
    """One thing that is found.

    Attributes:
        kind: `problem`: the dataset is not what its manifest says. `warning`: it is, and its user may not want that.
            `unchecked`: a fact that could not be checked, and why.
        text: one line.
    """

    kind: Literal["problem", "warning", "unchecked"]
    text: str


def raise_problems(problems: Iterable[str]) -> None:
    """Raises one `BroetchenError` of all the problems, each once, if there are any."""
    if lines := sorted({one_line(problem) for problem in problems}):
        raise BroetchenError("\n".join(lines))


@dataclasses.dataclass(frozen=True)
class FileCheck:
    """A file, and its size in bytes and SHA-256 if the dataset is sound."""

    path: str
    size: int
    sha256: str


@contextlib.contextmanager
def held_against(check: FileCheck) -> Iterator[tuple[str, list[str]]]:
    """A local path with a file's content, and the faults of its size and checksum.

    Raises:
        BroetchenError: it is no regular file, or cannot be read.
    """
    check_regular(check.path)
    with storage.local_copy(check.path) as local:
        with explain_file_errors(check.path, "read"), open(local, "rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
            size = handle.tell()
        problems = []
        if size != check.size:
            problems.append(size_problem(check.path, size, check.size))
        if digest != check.sha256:
            problems.append(f"{check.path}: sha256 {digest}, not {check.sha256}")
        yield local, problems


def size_problem(path: str, found: int, said: int) -> str:
    """The line that tells of a file of another size."""
    return f"{path}: {found:,} bytes, not {said:,}"


def file_problems(check: FileCheck) -> list[str]:
    """The faults of a file by its size and checksum; a missing file has none."""
    if not storage.exists(check.path):
        return []  # `dataset_problems` has said so
    try:
        with held_against(check) as (_, problems):
            return problems
    except BroetchenError as error:
        return [str(error)]
