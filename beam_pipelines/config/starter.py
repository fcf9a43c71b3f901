"""The first config of a user: `mix_configs/starter.yaml`, with paths that hold wherever it is written to."""

from __future__ import annotations

import importlib.resources
import os
import re
import shlex

from transforms.errors import UsageError
from transforms.patterns import quoted

_SCHEMA = re.compile(r"(?<=\$schema=)mix\.schema\.json$", re.M)
_SAMPLES = re.compile(r"\b(path|source): \.\./samples/(\S+)$", re.M)
_FILE = re.compile(r"\bFILE\b")


def write_starter(path: str) -> None:
    """Writes a commented mix config that builds at once, from the sample corpora of the installation.

    Raises:
        UsageError: something lies at `path`, or its folder is not there or cannot be written.
    """
    text = starter(os.path.basename(path))
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError(f"{path}: there is a file already, and it stays; choose another name") from error
    except FileNotFoundError as error:
        raise UsageError(f"{path}: there is no folder for it; make it first") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}; choose another place") from error


def starter(name: str) -> str:
    """The text of the starter for a file of this name."""
    folder = importlib.resources.files("mix_configs")
    samples = str(importlib.resources.files("samples"))
    # A source is a pattern, in which the folder is a name.
    roots = {"path": samples, "source": quoted(samples)}
    text = (folder / "starter.yaml").read_text(encoding="utf-8")
    text = _SCHEMA.sub(lambda _: str(folder / "mix.schema.json"), text)
    text = _SAMPLES.sub(lambda found: f"{found[1]}: {_scalar(os.path.join(roots[found[1]], found[2]))}", text)
    return _FILE.sub(lambda _: shlex.quote(name), text)


def _scalar(path: str) -> str:
    """A path as YAML takes it, quoted where its name needs it."""
    return "'" + path.replace("'", "''") + "'"
