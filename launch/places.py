"""Where the machines that train find a file: on this machine's disk, or in buckets that are mounted on theirs."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from transforms.errors import UsageError
from transforms.files import storage

GS = "gs://"
"""The prefix of names in buckets."""

MOUNT_ROOT = "/mnt/broetchen"
"""Where buckets are mounted on TPUs' machines."""

# https://cloud.google.com/storage/docs/buckets#naming. Such a name needs no quoting, neither in a
# shell nor in a unit of systemd.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


class Place(Protocol):
    """The file systems of the machines that train."""

    def locate(self, uri: str) -> str:
        """The path by which the trainer reads or writes `uri`, a local path or gs://….

        Raises:
            UsageError: it cannot be reached from there.
        """
        ...


@dataclass(frozen=True)
class LocalPlace:
    """This machine's disk."""

    def locate(self, uri: str) -> str:
        """The absolute path of `uri`.

        Raises:
            UsageError: it is no local path.
        """
        if not storage.is_local(uri):
            raise UsageError(
                f"{uri} is not on this machine, where the trainer reads; copy it here (gcloud storage cp --recursive), "
                "or mount its bucket with gcsfuse, and name the folder"
            )
        return _absolute(uri)


@dataclass
class MountedPlace:
    """Machines of Google Cloud on which buckets are mounted, each in a folder of its own (`mount_point`).

    Attributes:
        what: what errors call the machines.
        buckets: those that were asked for so far, which are those to mount.
    """

    what: str
    buckets: list[str] = field(default_factory=list)

    def locate(self, uri: str) -> str:
        """The path at which the machines find `uri`.

        Raises:
            UsageError: it lies on this machine.
        """
        if not uri.startswith(GS):
            raise UsageError(
                f"{uri!r} is not in a bucket, and {self.what} cannot see this machine's disk; name a folder as "
                "gs://BUCKET/FOLDER, and copy there what it is to have (gcloud storage cp --recursive)"
            )
        bucket, path = split_uri(uri)
        if bucket not in self.buckets:
            self.buckets.append(bucket)
        return f"{mount_point(bucket)}/{path}" if path else mount_point(bucket)


@dataclass(frozen=True)
class Mounts:
    """A machine with buckets mounted as its owner likes: `mounts` has a path for each gs://bucket or
    gs://bucket/folder.

    A path on no mount keeps its gs:// name; local paths become absolute.
    """

    mounts: Mapping[str, str]

    @classmethod
    def parse(cls, options: Sequence[str]) -> Mounts:
        """From options of the form `gs://bucket=/path`.

        Raises:
            UsageError: one is not of that form.
        """
        mounts = {}
        for option in options:
            uri, _, path = option.partition("=")
            if not uri.startswith(GS) or not uri.removeprefix(GS).strip("/") or not path.startswith("/"):
                raise UsageError(f"--mount {option}: not of the form gs://bucket=/path, with an absolute path")
            mounts[uri.rstrip("/")] = path
        return cls(mounts)

    def locate(self, uri: str) -> str:
        """See `Place`."""
        for mounted in sorted(self.mounts, key=len, reverse=True):
            if uri == mounted or uri.startswith(f"{mounted}/"):
                return posixpath.join(self.mounts[mounted], uri[len(mounted) :].lstrip("/")).rstrip("/")
        if storage.is_local(uri):
            return _absolute(uri)
        if not uri.startswith(GS):
            raise UsageError(f"{uri}: MaxText reads local paths and gs:// alone; copy it there")
        return uri


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and path of a gs:// URI.

    >>> split_uri("gs://corpus/mix/german")
    ('corpus', 'mix/german')

    Raises:
        UsageError: it is none.
    """
    bucket, _, path = uri.removeprefix(GS).partition("/")
    if not uri.startswith(GS) or not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{uri!r} is no path in a bucket; write it as gs://BUCKET/FOLDER")
    return bucket, path


def mount_point(bucket: str) -> str:
    """The folder in which a bucket appears on TPUs' machines."""
    return f"{MOUNT_ROOT}/{bucket}"


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
