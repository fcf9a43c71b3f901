"""The user's own folder for what can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder of this user's cache: $BROETCHEN_CACHE, or broetchen/ in $XDG_CACHE_HOME or ~/.cache.

    >>> cache_folder().is_absolute()
    True
    """
    if own := os.environ.get("BROETCHEN_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification has relative paths ignored.
    return (Path(shared) if shared and os.path.isabs(shared) else Path.home() / ".cache") / "broetchen"
