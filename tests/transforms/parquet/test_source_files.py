"""The source files that patterns name."""

from __future__ import annotations

from pathlib import Path

import pytest

from transforms.errors import BroetchenError
from transforms.parquet.source_files import expand_sources


def test_a_pattern_that_matches_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BroetchenError, match=r"nothing-\*\.parquet: no file matches"):
        expand_sources([str(tmp_path / "nothing-*.parquet")])
