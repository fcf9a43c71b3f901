"""Paths of files in dataset repositories of the Hugging Face hub: `hf://datasets/OWNER/NAME@REVISION/path`."""

from __future__ import annotations

import dataclasses
import re

from transforms.errors import UsageError

SCHEME = "hf"

COMMIT = re.compile(r"[0-9a-f]{40}")
"""A full commit hash, which pins a revision: a branch or a tag may move."""

REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?")
"""The id of a repository: OWNER/NAME, or the name alone of some that are old."""

_PATH = re.compile(
    r"hf://datasets/(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]*))?/(?P<path>.*)"
)
# The names of fsspec's hf:// for the revisions that the hub itself makes of other formats.
_MADE_BY_THE_HUB = {f"~{kind}": f"refs/convert/{kind}" for kind in ("parquet", "duckdb")}


@dataclasses.dataclass(frozen=True)
class HubPath:
    """A path or a glob pattern in a dataset repository; `revision` is "" where the path names none.

    A revision is a branch, a tag or a commit, or one of ``refs/pr/NUMBER`` and ``refs/convert/parquet``, the parquet
    that the hub makes of other formats, also written ``~parquet``.
    """

    repository: str
    revision: str
    path: str

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"hf://datasets/{self.repository}{at}/{self.path}"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a full commit hash."""
        return COMMIT.fullmatch(self.revision) is not None

    @classmethod
    def parse(cls, text: str) -> HubPath:
        """Reads `hf://datasets/OWNER/NAME@REVISION/path`.

        Raises:
            UsageError: the text is not of that form.

        >>> HubPath.parse("hf://datasets/owner/corpus@main/de/*.parquet").path
        'de/*.parquet'
        """
        found = cls.find(text)
        if found is None:
            raise UsageError(
                f"{text}: not a path of a hub dataset; write hf://datasets/OWNER/NAME@REVISION/path/*.parquet"
            )
        return found

    @classmethod
    def find(cls, text: str) -> HubPath | None:
        """Reads the same, and gives None for any other text."""
        match = _PATH.fullmatch(text)
        if match is None or ".." in match["path"].split("/"):
            return None
        revision = match["revision"] or ""
        return cls(match["repository"], _MADE_BY_THE_HUB.get(revision, revision), match["path"])
