"""Runs the tutorial, and writes the output of its commands into it: `make tutorial`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.documents.session import Session, blocks_of, log, with_outputs
from tests.support.documents import ROOT

TUTORIAL = ROOT / "docs" / "tutorial.md"
#: the heading from which on it is about other machines than this one
AT_SCALE = "## Two billion tokens\n"


def samples_in(folder: Path) -> Path:
    """The folder, with the files that the tutorial takes from a clone."""
    (folder / "samples").symlink_to(ROOT / "samples")
    return folder


def main() -> int:
    """See the module."""
    text = TUTORIAL.read_text(encoding="utf-8")
    here, heading, at_scale = text.partition(AT_SCALE)
    printed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="tutorial-") as folder:
        session = Session(samples_in(Path(folder)))
        for block in blocks_of(here):
            log(block.commands)
            printed.append(session.run(block))
            log(printed[-1])
    TUTORIAL.write_text(with_outputs(here, printed) + heading + at_scale, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
