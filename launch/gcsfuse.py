"""Buckets as folders: how gs:// is mounted on the machines that train.

MaxText reads ArrayRecord from local paths, so that gcsfuse mounts each bucket of the data, read-only, below
`/mnt/broetchen`. The options are those of gcsfuse's config file
(https://cloud.google.com/storage/docs/cloud-storage-fuse/config-file).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import yaml

from launch.job import Place
from transforms.errors import UsageError
from transforms.manifest import Manifest

MOUNT_ROOT = "/mnt/broetchen"

# https://cloud.google.com/storage/docs/buckets#naming. What matters here: such a name needs no quoting, neither in a
# shell nor in a unit of systemd.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and path of a gs:// URI.

    >>> split_uri("gs://corpus/mix/german")
    ('corpus', 'mix/german')

    Raises:
        UsageError: it is none.
    """
    bucket, _, path = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{uri!r} is no path in a bucket; write it as gs://BUCKET/FOLDER")
    return bucket, path


def data_size(manifests: Iterable[Manifest]) -> int:
    """Bytes of all shards of built datasets."""
    return sum(split.bytes for manifest in manifests for split in manifest.splits.values())


def mount_point(bucket: str) -> str:
    """The folder in which a bucket appears."""
    return f"{MOUNT_ROOT}/{bucket}"


@dataclass
class MountedPlace(Place):
    """Machines on which buckets are mounted. It keeps in mind which of them were asked for: those have to be."""

    what: str
    buckets: list[str] = field(default_factory=list)

    def locate(self, uri: str) -> str:
        """Where the machines find what lies at `uri`.

        Raises:
            UsageError: it lies on this machine.
        """
        if not uri.startswith("gs://"):
            raise UsageError(
                f"{uri!r} is not in a bucket, and {self.what} cannot read this machine's disk; copy it to a bucket "
                "(gcloud storage cp --recursive FOLDER gs://BUCKET/) and name it as gs://…"
            )
        bucket, path = split_uri(uri)
        if bucket not in self.buckets:
            self.buckets.append(bucket)
        return f"{mount_point(bucket)}/{path}" if path else mount_point(bucket)


def cache_whole_files(data_bytes: int, cache_bytes: int) -> bool:
    """Whether gcsfuse should fetch a whole file when a part of it is read.

    Grain reads records in random order over all files, so that a cache that holds all data is filled once and serves
    every later read, while one that holds less would fetch a file of hundreds of megabytes for each record. There the
    records themselves are fetched, by range.
    """
    return 0 < data_bytes <= cache_bytes


def mount_config(bucket: str, *, cache_folder: str, cache_bytes: int, data_bytes: int) -> str:
    """gcsfuse's config file for a bucket with data that nobody changes.

    Metadata and listings are kept for good, as in gcsfuse's profile `aiml-training`; folders exist without objects of
    their own; files are cached where all of the data fits, each bucket's in a folder of its own.
    """
    config: dict[str, object] = {
        "implicit-dirs": True,
        "metadata-cache": {
            "ttl-secs": -1,
            "negative-ttl-secs": 0,
            "stat-cache-max-size-mb": -1,
            "type-cache-max-size-mb": -1,
        },
        "file-system": {"kernel-list-cache-ttl-secs": -1},
    }
    if cache_whole_files(data_bytes, cache_bytes):
        config["cache-dir"] = f"{cache_folder}/{bucket}"
        config["file-cache"] = {
            "max-size-mb": cache_bytes >> 20,
            "cache-file-for-range-read": True,
            "enable-parallel-downloads": True,
        }
    return yaml.safe_dump(config, sort_keys=False)


def mount_unit(bucket: str, *, config_folder: str) -> str:
    """The unit of systemd that mounts a bucket, read-only, for every user."""
    folder = mount_point(bucket)
    return f"""\
[Unit]
Description=gs://{bucket}, read-only
Wants=network-online.target
After=network-online.target

[Service]
Type=forking
ExecStart=/usr/bin/gcsfuse --config-file={config_folder}/{bucket}.yaml -o ro -o allow_other {bucket} {folder}
ExecStop=/bin/umount {folder}
Restart=on-failure
RestartSec=10

[Install]
WantedBy=multi-user.target
"""


def mount_options(*, cache_bytes: int, data_bytes: int) -> str:
    """The same settings as options of the CSI driver of GKE, `a:b:c` for the key c of b of a.

    >>> mount_options(cache_bytes=0, data_bytes=1).split(",")[:2]
    ['implicit-dirs', 'ro']
    """
    options = [
        "implicit-dirs",
        "ro",
        "metadata-cache:ttl-secs:-1",
        "metadata-cache:stat-cache-max-size-mb:-1",
        "metadata-cache:type-cache-max-size-mb:-1",
        "file-system:kernel-list-cache-ttl-secs:-1",
    ]
    if cache_whole_files(data_bytes, cache_bytes):
        options += [f"file-cache:max-size-mb:{cache_bytes >> 20}", "file-cache:cache-file-for-range-read:true"]
    return ",".join(options)
