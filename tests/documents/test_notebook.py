"""The example notebook runs, and prints what it says."""

from __future__ import annotations

import pytest

from tests.documents import notebook


@pytest.mark.slow
def test_the_cells_print_what_is_shown() -> None:
    content = notebook.read()
    assert notebook.run(content) == notebook.outputs(content), "`make tutorial` writes again what is shown"


def test_it_is_a_notebook_that_was_run() -> None:
    content = notebook.read()
    assert (content["nbformat"], {cell["cell_type"] for cell in content["cells"]}) == (4, {"markdown", "code"})
    counts = [cell["execution_count"] for cell in content["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert sum(bool(output) for output in notebook.outputs(content)) >= len(counts) - 1
    for name in ("load_mix", "plan", "build", "verify", "count", "open_dataset", "grain.MapDataset"):
        assert any(name in program for program in notebook.programs(content)), name
