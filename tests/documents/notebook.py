"""The example notebook: runs its cells, and writes their output into it: `python -m tests.documents.notebook`.

Neither Jupyter nor a package of its is needed: a notebook is JSON (https://nbformat.readthedocs.io), whose cells run in
order in one fresh Python, in the folder of the notebook.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.documents import ROOT

NOTEBOOK = ROOT / "docs" / "example.ipynb"

# Reads the programs of the cells as JSON, and writes the output of each.
_RUN = """
import contextlib, io, json, sys
names, printed = {"__name__": "__main__"}, []
for number, program in enumerate(json.load(sys.stdin), start=1):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(program, f"cell {number}", "exec"), names)
    printed.append(output.getvalue())
json.dump(printed, sys.stdout)
"""


def read(path: Path = NOTEBOOK) -> dict[str, Any]:
    """The notebook, as it is in its file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def programs(notebook: dict[str, Any]) -> list[str]:
    """The texts of its code cells."""
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(notebook: dict[str, Any]) -> list[str]:
    """The output of each code cell, as the notebook has it."""
    return [
        "".join(line for output in cell["outputs"] for line in output["text"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def run(notebook: dict[str, Any]) -> list[str]:
    """Runs the code cells, and returns the output of each.

    Raises:
        AssertionError: a cell has failed.
    """
    done = subprocess.run(
        [sys.executable, "-c", _RUN], input=json.dumps(programs(notebook)), cwd=NOTEBOOK.parent, capture_output=True,
        text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed: list[str] = json.loads(done.stdout)
    return printed


def main() -> int:
    """See the module."""
    notebook = read()
    printed = iter(run(notebook))
    for number, cell in enumerate((cell for cell in notebook["cells"] if cell["cell_type"] == "code"), start=1):
        lines = next(printed).splitlines(keepends=True)
        cell["execution_count"] = number
        cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": lines}] if lines else []
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
