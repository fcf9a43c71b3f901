"""Packages that others import where they are installed, and no command uses, are left out of its process.

Beam and pyarrow take each of them for optional, and importing them takes a quarter of a build's start-up.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import logging
import sys
import types
from collections.abc import Sequence

LEFT_OUT = ("bson", "google.cloud.bigquery", "google.cloud.pubsub", "pandas", "pymongo")
"""Packages for Beam's connectors to MongoDB, BigQuery and Pub/Sub, and for data frames."""

# It warns that it finds no MongoDB.
_WARNS = "apache_beam.io.mongodbio"


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the packages, and cannot import them. `None` in `sys.modules` would say so to Python, and not to Cython."""

    def __init__(self) -> None:
        self.names = set(LEFT_OUT)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in self.names else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        raise ModuleNotFoundError(f"{spec.name} is left out of this process", name=spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Is never come to, and has to be there."""


_absent = _Absent()


def leave_out() -> None:
    """Has an import of `LEFT_OUT` be an ImportError from here on, unless it is imported already."""
    if _absent not in sys.meta_path:
        sys.meta_path.insert(0, _absent)
    logging.getLogger(_WARNS).setLevel(logging.ERROR)


def allow(name: str) -> None:
    """Lets a package be imported after all, for code that cannot do without it."""
    _absent.names.discard(name)
