"""Packages that are left out of a process, in Python and in modules that Cython has compiled."""

from __future__ import annotations

import subprocess
import sys


def test_a_package_that_is_left_out_can_be_allowed() -> None:
    program = """
import importlib.util, sys
from transforms.left_out import LEFT_OUT, allow, leave_out
leave_out()
leave_out()
try:
    import pandas
except ImportError as error:
    assert error.name == "pandas"
else:
    raise AssertionError("pandas was imported")
import pyarrow as pa
assert pa.array(["a", None]).null_count == 1
assert "pandas" not in sys.modules
allow("pandas")
allow("pandas")
import pandas
assert pandas.Series([1, 2]).sum() == 3
assert len(sys.meta_path) == len(set(map(id, sys.meta_path)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
