"""A seal on a file that a build writes and a user may edit: a line with a checksum of all other lines.

So a build tells its own file, which it may replace, from a user's, and from its own that a user has changed since.
"""

from __future__ import annotations

import hashlib
import re

_SEAL = re.compile(r"^(?:<!-- |# )broetchen sha256:([0-9a-f]{64})(?: -->)?\n", re.M)


def sealed(before: str, after: str, comment: str) -> str:
    """The two parts of a text with the seal between them, on a line of its own.

    Args:
        before, after: whole lines, or nothing.
        comment: of the file's language, with `{}` for its text: `# {}` or `<!-- {} -->`.
    """
    return f"{before}{comment.format(f'broetchen sha256:{_digest(before + after)}')}\n{after}"


def is_sealed(data: bytes) -> bool:
    """Whether a file is as `sealed` has made it.

    >>> is_sealed(sealed("# A mix\\n", "a: 1\\n", "# {}").encode())
    True
    >>> is_sealed(sealed("# A mix\\n", "a: 1\\n", "# {}").replace("a: 1", "a: 2").encode())
    False
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    seals = _SEAL.findall(text)
    return len(seals) == 1 and seals[0] == _digest(_SEAL.sub("", text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
