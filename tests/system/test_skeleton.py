"""The project's frame: lock files, dependencies, the package's contents, the samples, the README's commands."""

import ast
import functools
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tokenizers import Tokenizer

from beam_pipelines.config.mix import load_config
from tests.support.packages import PACKAGES, ROOT, build_package

#: dataset -> tokens that the demo writes: its share of 400,000 for train, and 2,000 for eval
DEMO_TOKENS = {
    "fineweb2_german": 122_000,
    "finepdfs_german": 202_000,
    "fineweb_english": 22_000,
    "fineweb_edu_english": 22_000,
    "finepdfs_english": 42_000,
}


def read_project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def read_lock(name: str) -> dict[str, str]:
    """Pinned version by normalized name, of the pins that hold on this machine; fails on a pin without a hash."""
    pins: dict[str, str] = {}
    for line in (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        text, *hashes = line.split(" --hash=")
        requirement = Requirement(text)
        assert hashes, f"{name}: {text} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", digest) for digest in hashes)
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        if requirement.marker is None or requirement.marker.evaluate():
            pins[canonicalize_name(requirement.name)] = specifier.version
    assert pins
    return pins


def names_of(requirements: Iterable[str]) -> set[str]:
    return {str(canonicalize_name(Requirement(line).name)) for line in requirements}


def test_core_packages_are_declared() -> None:
    requirements = map(Requirement, read_project()["project"]["dependencies"])
    declared: dict[str, Requirement] = {canonicalize_name(line.name): line for line in requirements}
    core = {"apache-beam", "datasets", "tokenizers", "array-record", "grain", "pyarrow", "jax", "maxtext", "pyyaml"}
    assert core <= declared.keys()
    assert declared["apache-beam"].extras == {"gcp"}
    assert not declared["maxtext"].extras, "MaxText's extras exclude Beam's"


@pytest.mark.parametrize(
    ("lock", "groups"), [("requirements.lock", ()), ("requirements-dev.lock", ("dev", "bench"))], ids=["run", "dev"]
)
def test_lock_satisfies_pyproject(lock: str, groups: tuple[str, ...]) -> None:
    project = read_project()
    pins = read_lock(lock)
    wanted = list(project["project"]["dependencies"])
    for group in groups:
        wanted += project["dependency-groups"][group]
    for line in wanted:
        requirement = Requirement(line)
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{lock} lacks {line}: run make lock"
        assert requirement.specifier.contains(pin, prereleases=True), f"{lock} has {pin} for {line}: run make lock"


def test_dev_lock_extends_run_lock() -> None:
    run, dev = read_lock("requirements.lock"), read_lock("requirements-dev.lock")
    assert run.items() <= dev.items()
    assert not {"torch", "tensorflow", "tensorflow-cpu"} & dev.keys(), "too heavy for what is used of them"


LOCKS = [
    "requirements.lock",
    "requirements-dev.lock",
    *(f"launch/requirements/{path.name}" for path in ROOT.glob("launch/requirements/*.lock")),
]


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_is_the_same_on_every_machine(lock: str) -> None:
    for line in (ROOT / lock).read_text(encoding="utf-8").splitlines():
        assert "://" not in line
        assert not re.search(r"--(extra-)?index|--find-links|(^|\s)/", line), line


def test_python_version_is_the_required_one() -> None:
    version = (ROOT / ".python-version").read_text(encoding="utf-8").strip()
    assert version == "3.12"
    requirement = Requirement(f"python{read_project()['project']['requires-python']}")
    assert requirement.specifier.contains(version)
    assert not requirement.specifier.contains("3.13")


_distributions = functools.cache(packages_distributions)


@functools.cache
def imported_names(folder: Path) -> dict[str, Path]:
    """Top-level names that the modules of `folder` import absolutely, with one file that does."""
    names: dict[str, Path] = {}
    for path in folder.rglob("*.py"):
        if path.parent.name == "programs":
            continue  # These are run by other environments than ours.
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found = [node.module]
            else:
                continue
            names.update({name.split(".")[0]: path for name in found})
    return names


@pytest.mark.parametrize("folder", [*PACKAGES, "tests", "benchmarks"])
def test_imports_are_declared(folder: str) -> None:
    project = read_project()
    declared = names_of(project["project"]["dependencies"])
    if folder not in PACKAGES:
        for group in project["dependency-groups"].values():
            declared |= names_of(group)
    distributions = _distributions()
    ours = {*PACKAGES, "tests", "benchmarks"}
    ours |= {path.stem for path in (ROOT / folder).glob("*.py")}
    for name, path in imported_names(ROOT / folder).items():
        if name in sys.stdlib_module_names or name in ours:
            continue
        owners = {canonicalize_name(owner) for owner in distributions.get(name, [name])}
        assert owners & declared, f"{path.relative_to(ROOT)} imports {name}, which pyproject.toml does not declare"


@pytest.mark.parametrize(("folder", "may"), [("transforms", set()), ("launch", {"transforms"})])
def test_what_a_package_imports_of_ours(folder: str, may: set[str]) -> None:
    assert not (set(PACKAGES) - {folder} - may) & imported_names(ROOT / folder).keys()


def test_readme_starts_with_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^(make \w+|\.venv/bin/\S+ \S+)", text, flags=re.MULTILINE)
    assert commands[:2] == ["make demo", "make test"]


def test_readme_mix_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert blocks
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    for block in blocks:
        (tmp_path / "mix.yaml").write_text(block, encoding="utf-8")
        assert load_config(tmp_path / "mix.yaml").datasets


def test_make_help_lists_the_targets() -> None:
    answer = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = re.findall(r"^  make ([a-z]+)", answer.stdout, flags=re.MULTILINE)
    assert {"demo", "test", "lint", "bench", "lock", "clean"} <= set(listed)


def test_make_names_what_to_do_without_python(tmp_path: Path) -> None:
    for name in ("Makefile", ".python-version"):
        shutil.copy(ROOT / name, tmp_path / name)
    answer = subprocess.run(
        ["make", "demo", "PYTHON=/nonexistent/python"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 2
    assert "PYTHON=/nonexistent/python is no Python 3.12" in answer.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.slow
def test_package_holds_code_configs_and_samples(tmp_path: Path) -> None:
    """The sdist is made as Beam makes it from `--setup_file`; the wheel is what a worker installs from that sdist."""
    built = build_package(tmp_path)
    assert any(name.endswith(".parquet") for name in built.files)
    assert built.name == "broetchen-" + read_project()["project"]["version"]
    with zipfile.ZipFile(built.wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        entry_points = archive.read(f"{built.name}.dist-info/entry_points.txt").decode()
    assert names == built.files
    assert "broetchen = beam_pipelines.cli:main" in entry_points


def test_samples_are_small() -> None:
    total = sum(path.stat().st_size for path in (ROOT / "samples").rglob("*") if path.is_file())
    assert total <= 8_000_000


@pytest.mark.parametrize("dataset", DEMO_TOKENS)
def test_samples_hold_more_than_the_demo_needs(dataset: str) -> None:
    tokenizer = Tokenizer.from_file(str(ROOT / "samples" / "tokenizer.json"))
    files = sorted((ROOT / "samples" / "corpora" / dataset).glob("*.parquet"))
    assert len(files) >= 2
    assert [path.name for path in files] == [f"000_{number:05d}.parquet" for number in range(len(files))]
    tokens = 0
    for path in files:
        file = pq.ParquetFile(path)
        assert file.num_row_groups >= 3
        assert file.schema_arrow.names == ["text", "id", "url", "language", "license"]
        table = file.read()
        assert set(table["license"].to_pylist()) <= {"MPL-2.0", "CC-BY-SA-3.0", "GPL-2.0+"}
        assert set(table["language"].to_pylist()) == {"deu_Latn" if dataset.endswith("german") else "eng_Latn"}
        if tokens < 1.5 * DEMO_TOKENS[dataset]:
            encodings = tokenizer.encode_batch_fast(table["text"].to_pylist(), add_special_tokens=False)
            tokens += sum(len(encoding.ids) for encoding in encodings)
    assert tokens >= 1.5 * DEMO_TOKENS[dataset]


def test_sample_readme_names_every_package() -> None:
    text = (ROOT / "samples" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "samples" / "corpora").rglob("*.parquet"):
        for url in pq.read_table(path, columns=["url"])["url"].to_pylist():
            package = url.removeprefix("debian:").split("/")[0]
            assert package in text, f"{path.name}: {package} has no line in samples/README.md"


def test_sample_tokenizer_loses_no_byte() -> None:
    """All 256 byte symbols have an id, so that no text can be lost."""
    vocabulary = json.loads((ROOT / "samples" / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    tokenizer = Tokenizer.from_file(str(ROOT / "samples" / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 65_536
    assert tokenizer.token_to_id("<|bos|>") == 0
    assert tokenizer.token_to_id("<|eos|>") == 1
    assert sum(len(symbol) == 1 for symbol in vocabulary) >= 256
    text = "Brötchen für 1,20 €\n\t\x00 \U0001f950 Ελληνικά 日本語"
    assert tokenizer.decode(tokenizer.encode(text).ids).strip() == text
