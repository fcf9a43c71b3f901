"""Renaming in Google Cloud Storage: copy and delete, each only if the objects are still those that were looked at.

Beam's own rename copies and deletes whatever has the names when its requests arrive, so two attempts at one file could
mix. Here each request names the generation that it means (`ifGenerationMatch` and `ifSourceGenerationMatch`, see
https://cloud.google.com/storage/docs/request-preconditions), which also makes it safe to repeat.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any

from transforms.errors import BroetchenError
from transforms.files.gcs_objects import gcs_bucket


def rename(source: str, target: str) -> None:
    """Gives an object another name, and replaces what has that name now.

    Raises:
        FileNotFoundError: there is no `source`.
        BroetchenError: another process has written other content to `target` meanwhile; `source` is still there.
        google.api_core.exceptions.GoogleAPIError: the store refuses.
    """
    # The client is there only where the gcp extra of Beam is installed.
    from google.api_core.exceptions import NotFound, PreconditionFailed

    (old, source_name), (new, target_name) = gcs_bucket(source), gcs_bucket(target)
    blob = old.get_blob(source_name)
    if blob is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
    replaced = new.get_blob(target_name)
    try:
        old.copy_blob(
            blob,
            new,
            target_name,
            if_source_generation_match=blob.generation,
            if_generation_match=replaced.generation if replaced else 0,
        )
    except PreconditionFailed as error:
        # This very request may have been done before its answer was lost, and another attempt writes the same bytes.
        if not _same_content(blob, new.get_blob(target_name)):
            raise BroetchenError(
                f"{target}: another process has written it meanwhile; see that only one build writes there, and run it "
                "again"
            ) from error
    # It may be gone, by this very request or another attempt's; or written anew, by one that will rename it itself.
    with contextlib.suppress(NotFound, PreconditionFailed):
        blob.delete(if_generation_match=blob.generation)


def _same_content(one: Any, other: Any) -> bool:
    return other is not None and (one.size, one.crc32c) == (other.size, other.crc32c)
