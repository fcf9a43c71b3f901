"""How gcsfuse mounts a bucket on the machines that train.

ArrayRecord's reader takes `gs://`, but sends a request for each record, and MaxText maps Megatron's files into memory.
So each bucket of the data is mounted, read-only, below `places.MOUNT_ROOT`. The options are those of gcsfuse's config
file (https://cloud.google.com/storage/docs/cloud-storage-fuse/config-file).
"""

from __future__ import annotations

import yaml

from launch.places import mount_point


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
