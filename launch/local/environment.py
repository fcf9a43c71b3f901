"""Python environments beside our own: made once from a lock file, kept in the cache, and used by all runs.

MaxText's trainer cannot share an environment with Beam, nor PyTorch with MaxText: they want other versions of the same
packages. Each gets a folder that is named by its content, so that another lock file means another folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from launch.config.training import TrainingConfig
from launch.job import Command
from launch.places import LocalPlace
from launch.processes import last_lines, run_logged
from transforms.cache import cache_folder
from transforms.errors import BroetchenError, UsageError
from transforms.files.own_file import open_own

_LOGGER = logging.getLogger(__name__)


_HERE = Path(__file__).parents[1] / "requirements"
# Written last: an environment without it was interrupted, and is made again.
_STAMP = ".complete"
_SHOWN_LINES = 15


@dataclass(frozen=True)
class PythonEnvironment:
    """An environment that a lock file describes.

    Attributes:
        name: begins the name of its folder.
        lock: a requirements file with all versions and hashes.
        content: in words, for people.
    """

    name: str
    lock: Path
    content: str

    @property
    def folder(self) -> Path:
        """Where it is, or will be."""
        what = hashlib.sha256(self.lock.read_bytes() + b"python 3.12").hexdigest()
        return cache_folder() / f"{self.name}-{what[:12]}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def is_ready(self) -> bool:
        """Whether it is there, whole."""
        return (self.folder / _STAMP).exists()

    def commands(self) -> tuple[Command, ...]:
        """The commands that make it, or make it again."""
        make = (*_uv(), "venv", "--quiet", "--clear", "--python", sys.executable, str(self.folder))
        # Bytecode is compiled at once: without it, each start of a trainer whose user forbids Python to write any
        # would compile some thousand modules again.
        install = (*_uv(), "pip", "install", "--quiet", "--python", str(self.python))
        # A source distribution would be built by packages that no lock file names.
        only_locked = ("--require-hashes", "--only-binary", ":all:")
        return (
            Command(make, "makes an environment of its own"),
            Command((*install, *only_locked, "--compile-bytecode", "-r", str(self.lock)), f"installs {self.content}"),
            Command(("touch", str(self.folder / _STAMP)), "marks it as whole"),
        )

    def ensure(self) -> Path:
        """Makes the environment unless it is there; answers with its interpreter.

        One process makes it while others wait. The remains of an interrupted one are removed.

        Raises:
            UsageError: uv, which installs it, is missing.
            BroetchenError: it cannot be installed.
        """
        if self.is_ready:
            return self.python
        commands = self.commands()
        with _alone(self.folder.with_suffix(".lock")):
            if self.is_ready:
                return self.python
            shutil.rmtree(self.folder, ignore_errors=True)
            _LOGGER.info("installing %s into %s, once", self.content, self.folder)
            log = self.folder.with_suffix(".log")
            log.unlink(missing_ok=True)
            for command in commands:
                if run_logged(command.arguments, log):
                    raise BroetchenError(
                        f"{self.content} cannot be installed; follow uv's message, and start again:\n"
                        f"{last_lines(log, _SHOWN_LINES)}"
                    )
            return self.python


def compiled_folder() -> str:
    """The folder in which JAX keeps compiled programs; MaxText's default is one in the user's home."""
    return str(cache_folder() / "jax")


def trainer(accelerator: str) -> PythonEnvironment:
    """The environment of MaxText's trainer, for the `cpu` or the `gpu`."""
    lock = _HERE / f"trainer_requirements_{accelerator}.lock"
    size = {"cpu": "1.3 GB", "gpu": "some 6 GB"}[accelerator]
    return PythonEnvironment(f"trainer-{accelerator}", lock, f"MaxText 0.2.5 for the {accelerator.upper()} ({size})")


def generation() -> PythonEnvironment:
    """The environment that loads exported models: transformers with PyTorch."""
    lock = _HERE / "generation_requirements.lock"
    return PythonEnvironment("generation", lock, "transformers with PyTorch (5.4 GB on Linux, with its CUDA)")


def _uv() -> tuple[str, ...]:
    if importlib.util.find_spec("uv"):
        return (sys.executable, "-m", "uv")
    if found := shutil.which("uv"):
        return (found,)
    lock = _HERE / "uv_requirements.lock"
    raise UsageError(
        "uv is not installed, which installs the trainer; install it with: "
        f"{sys.executable} -m pip install --require-hashes -r {lock}"
    )


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Holds the lock file `path`, and waits for a process that has it. The kernel lets go of it when a process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(open_own(path), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _LOGGER.info("waiting for another process that installs it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class GivenPython:
    """An interpreter that is there already, as the config says."""

    python: Path

    @property
    def is_ready(self) -> bool:
        """It is there, or nobody can make it."""
        return True

    def commands(self) -> tuple[Command, ...]:
        """None: it is not ours to make."""
        return ()

    def ensure(self) -> Path:
        """The interpreter.

        Raises:
            UsageError: there is none.
        """
        if not os.access(self.python, os.X_OK) or self.python.is_dir():
            raise UsageError(
                f"local.python: {self.python} is no program; name the interpreter of an environment with MaxText"
            )
        return self.python


def trainer_python(config: TrainingConfig, accelerator: str) -> PythonEnvironment | GivenPython:
    """The environment that runs MaxText on the `cpu` or the `gpu`; a config may name another.

    Raises:
        UsageError: the config names one that is not on this machine.
    """
    given = None if config.local is None else config.local.python
    if given is None:
        return trainer(accelerator)
    return GivenPython(Path(LocalPlace().locate(config.resolve(given))))
