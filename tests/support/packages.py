"""The project's package: an sdist as Beam makes it from `--setup_file`, and the wheel that is made of that sdist."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from beam_pipelines.runners.dataflow import packages

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = packages()


@dataclasses.dataclass(frozen=True)
class Built:
    """The wheel of the project.

    Attributes:
        files: all files of the packages' folders, relative to the project.
        name: of the project with its version, `broetchen-1.2.3`.
    """

    wheel: Path
    files: frozenset[str]
    name: str


def build_package(folder: Path) -> Built:
    """Makes sdist and wheel in `folder`, from a copy of the project: nothing is left in its own folder."""
    tree = folder / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    found = frozenset(
        path.relative_to(tree).as_posix()
        for package in PACKAGES
        for path in (tree / package).rglob("*")
        if path.is_file()
    )
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist")]
    subprocess.run([*build, "--sdist", str(tree)], check=True, capture_output=True)
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    subprocess.run([*build, "--wheel", str(unpacked)], check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    return Built(wheel, found, unpacked.name)
