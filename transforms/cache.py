"""The user's own folder for files that can be made again."""

from __future__ import annotations

import os
from pathlib import Path

from transforms.errors import UsageError


def cache_folder() -> Path:
    """The folder of this user's cache: $BROETCHEN_CACHE, or broetchen/ in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        UsageError: the user has no home, as some have in containers, or `~` names none.

    >>> cache_folder().is_absolute()
    True
    """
    own, shared = os.environ.get("BROETCHEN_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        if own:
            return Path(own).expanduser().absolute()
        # The XDG specification has relative paths ignored.
        return (Path(shared) if shared and os.path.isabs(shared) else Path.home() / ".cache") / "broetchen"
    except RuntimeError as error:
        whose = f"BROETCHEN_CACHE={own}: there is no such home" if own else "this user has no home"
        raise UsageError(f"{whose}, so there is no folder for a cache; name one by BROETCHEN_CACHE") from error
