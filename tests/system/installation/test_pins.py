"""Packages that are installed unseen are known by their hashes: those of the Makefile, the image, TPUs and trainers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.packages import ROOT

LOCKS = sorted(ROOT.glob("*.lock")) + sorted(ROOT.glob("launch/requirements/*.lock"))
UV_LOCK = ROOT / "launch" / "requirements" / "uv_requirements.lock"
# Where something is installed by pip or uv, and how that is written there.
PLACES = (
    "Makefile",
    ".ci/run",
    "Dockerfile",
    "launch/tpu/vm/setup.sh",
    "launch/tpu/xpk.py",
    "launch/local/environment.py",
)
INSTALLS = re.compile(r"pip\"?,? \"?(?:install|sync)\b")


def pins(lock: Path) -> dict[str, list[str]]:
    """The hashes of each requirement of a lock file."""
    lines = lock.read_text().replace("\\\n", " ").splitlines()
    wanted = (line for line in lines if line.strip() and not line.lstrip().startswith("#"))
    return {line.split(" --hash")[0].strip(): re.findall(r"--hash=(sha256:[0-9a-f]{64})\b", line) for line in wanted}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_each_package_has_one_version_and_hashes(lock: Path) -> None:
    found = pins(lock)
    assert found
    for requirement, hashes in found.items():
        assert re.match(r"[a-z0-9.-]+(\[[a-z0-9,_-]+\])?==\S+", requirement), requirement
        assert hashes, requirement


def test_uv_is_the_one_of_the_environment() -> None:
    (uv,) = pins(UV_LOCK).items()
    assert uv in pins(ROOT / "requirements.lock").items()


@pytest.mark.parametrize("place", PLACES)
def test_nothing_else_is_installed(place: str) -> None:
    """Each call of pip asks for hashes, or installs what lies there alone; no script of the network's is run."""
    text = re.sub(r"\\\n", " ", (ROOT / place).read_text())
    assert not re.search(r"\|\s*(env \S+ )*(ba)?sh\b|pipx|easy_install|get-pip", text)
    calls = [line for line in text.splitlines() if INSTALLS.search(line) and not line.lstrip().startswith("#")]
    assert calls or place == ".ci/run"
    for call in calls:
        assert "--require-hashes" in text
        assert "--require-hashes" in call or "--no-deps" in call or "install = (" in call, call


@pytest.mark.slow
def test_pip_installs_uv_by_its_hash_alone(tmp_path: Path) -> None:
    """As the Makefile and a TPU's machine do it, by a pip that has no uv."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--only-binary", ":all:"]
    install += ["--require-hashes", "--target"]
    subprocess.run([*install, tmp_path / "uv", "--requirement", UV_LOCK], check=True)
    said = subprocess.run([tmp_path / "uv" / "bin" / "uv", "--version"], check=True, capture_output=True, text=True)
    (pin,) = pins(UV_LOCK)
    assert said.stdout.split()[1] == pin.partition("==")[2]
    forged = tmp_path / "forged.lock"
    forged.write_text(re.sub(r"sha256:[0-9a-f]{8}", "sha256:00000000", UV_LOCK.read_text()))
    refused = subprocess.run([*install, tmp_path / "no", "--requirement", forged], capture_output=True, text=True)
    assert refused.returncode
    assert "DO NOT MATCH THE HASHES" in refused.stderr
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_what_is_built_is_built_by_what_the_lock_names(tmp_path: Path) -> None:
    """One package of Beam's has no wheel. Its build takes setuptools, by the hash in the lock file or not at all."""
    lock = ROOT / "requirements.lock"
    found = pins(lock)
    (source,) = (requirement for requirement in found if re.match(r"google-apitools.*< '3\.13'", requirement))
    wanted = tmp_path / "wanted.lock"
    wanted.write_text(f"{source} {' '.join(f'--hash={one}' for one in found[source])}\n")
    forged = tmp_path / "forged.lock"
    (setuptools,) = (requirement for requirement in found if requirement.startswith("setuptools=="))
    forged.write_text(f"{setuptools} --hash=sha256:{'0' * 64}\n")
    uv = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--no-cache",
        "--no-deps",
        "--python",
        sys.executable,
    ]
    uv += ["--require-hashes", "--requirement", str(wanted), "--target"]
    subprocess.run([*uv, str(tmp_path / "built"), "--build-constraints", str(lock)], check=True)
    refused = subprocess.run(
        [*uv, str(tmp_path / "no"), "--build-constraints", str(forged)], capture_output=True, text=True
    )
    assert refused.returncode
    assert "Hash mismatch" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_nothing_else_is_built(lock: Path, tmp_path: Path) -> None:
    """All others have wheels for this system: none of their code is run to install them."""
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--dry-run", "--python", sys.executable]
    built = ["--no-binary", "google-apitools"] if lock.parent == ROOT else []
    options = [
        "--only-binary",
        ":all:",
        *built,
        "--require-hashes",
        "--target",
        str(tmp_path),
        "--requirement",
        str(lock),
    ]
    done = subprocess.run([*uv, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
