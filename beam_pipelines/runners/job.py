"""A folder that the workers of one job share and that is gone after it."""

from __future__ import annotations

import contextlib
import posixpath
import tempfile
import uuid
from collections.abc import Iterator

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from transforms.files import storage as files


@contextlib.contextmanager
def scratch_folder(options: PipelineOptions, job: str) -> Iterator[str]:
    """A folder below `--temp_location`, where it is given, and else on this machine; `job` is part of its name."""
    remote = options.view_as(GoogleCloudOptions).temp_location
    if not remote:
        with tempfile.TemporaryDirectory(prefix=f"broetchen-{job}-") as local:
            yield local
        return
    # Workers elsewhere cannot read a folder of this machine.
    scratch = posixpath.join(remote, f"broetchen-{job}-{uuid.uuid4().hex}")
    try:
        yield scratch
    finally:
        files.delete_tree(scratch)
