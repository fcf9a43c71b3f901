"""Environments beside our own, made by the real uv from a package that is built on the spot."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import threading
import zipfile
from pathlib import Path

import pytest

from launch.local.environment import PythonEnvironment, generation, trainer
from tests.support.documents import ROOT
from transforms.cache import cache_folder
from transforms.errors import BroetchenError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BROETCHEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def package(folder: Path, value: str) -> Path:
    """A wheel whose module `tiny_package` has one value."""
    info = "tiny_package-1.0.dist-info"
    content = {
        "tiny_package.py": f"VALUE = {value!r}\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text)}\n"
    path = folder / value / "tiny_package-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {**content, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            wheel.writestr(name, text)
    return path


def environment(folder: Path, value: str = "right") -> PythonEnvironment:
    wheel = package(folder, value)
    lock = folder / f"{value}.lock"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock.write_text(f"tiny-package @ {wheel.as_uri()} --hash=sha256:{digest}\n")
    return PythonEnvironment("tiny", lock, "a tiny package")


def value_in(python: Path) -> str:
    program = "import tiny_package; print(tiny_package.VALUE)"
    return subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def test_an_environment_is_made_once(tmp_path, cache):
    made = environment(tmp_path)
    assert not made.is_ready
    python = made.ensure()
    assert value_in(python) == "right"
    assert made.folder.parent == cache
    stamp = (made.folder / ".complete").stat()
    assert made.ensure() == python
    assert (made.folder / ".complete").stat() == stamp


def test_what_is_shown_makes_the_same_environment(tmp_path):
    made = environment(tmp_path)
    for _ in range(2):  # the second time it is there already
        for command in made.commands():
            subprocess.run(command.arguments, check=True)
    assert made.is_ready
    assert value_in(made.python) == "right"


def test_another_lock_file_is_another_environment(tmp_path):
    one, other = environment(tmp_path), environment(tmp_path, "other")
    assert (value_in(one.ensure()), value_in(other.ensure())) == ("right", "other")
    assert one.folder != other.folder


def test_an_interrupted_installation_is_done_anew(tmp_path):
    made = environment(tmp_path)
    python = made.ensure()
    (made.folder / ".complete").unlink()
    module = next(made.folder.rglob("tiny_package.py"))
    # A file of its own: uv's cache has the same one.
    module.unlink()
    module.write_text("VALUE = 'half written")
    assert made.ensure() == python
    assert value_in(python) == "right"


def test_one_installs_while_others_wait(tmp_path):
    made = environment(tmp_path)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(value_in(made.ensure()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["right"] * 3


def test_a_package_of_another_hash_is_refused(tmp_path):
    made = environment(tmp_path)
    made.lock.write_text(made.lock.read_text()[:-9] + "00000000\n")
    with pytest.raises(BroetchenError, match=r"a tiny package cannot be installed(.|\n)*[Hh]ash"):
        made.ensure()
    assert not made.is_ready


def test_where_environments_are_kept(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("BROETCHEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache_folder() == tmp_path / "shared" / "broetchen"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "broetchen"


@pytest.mark.parametrize(
    ("made", "names"),
    [
        (trainer("cpu"), {"maxtext==0.2.5", "jax", "grain", "orbax-checkpoint"}),
        (trainer("gpu"), {"maxtext==0.2.5", "jax-cuda12-plugin"}),
        (generation(), {"torch", "transformers"}),
    ],
)
def test_lock_files_name_versions_and_hashes(made, names):
    lines = made.lock.read_text().replace("\\\n", " ").splitlines()
    packages = [line for line in lines if "==" in line]
    assert all("--hash=sha256:" in line for line in packages)
    assert all(any(line.startswith(name) for line in packages) for name in names)
    assert "://" not in made.lock.read_text()


def test_trainers_have_the_versions_of_the_tpus_trainer():
    """Runs here and on TPUs use the same versions; only a GPU needs packages that a TPU does not."""

    def versions(name: str) -> dict[str, str]:
        lock = ROOT / "launch" / "requirements" / f"trainer_requirements_{name}.lock"
        # The lock files hold for other systems too, where no TPU is.
        lines = [line for line in lock.read_text().splitlines() if "==" in line.partition(" ")[0]]
        here = [line.split()[0] for line in lines if "win32" not in line and "emscripten" not in line]
        return dict(name.split("==") for name in here)

    tpu = versions("tpu")
    assert {name: version for name, version in versions("cpu").items() if tpu.get(name) != version} == {}
    gpu = {name: version for name, version in versions("gpu").items() if tpu.get(name) != version}
    assert all(name.startswith(("jax-cuda12", "nvidia-")) for name in gpu), gpu
