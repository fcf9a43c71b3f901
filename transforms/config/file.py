"""Config files: how one is read from any filesystem that Beam knows, and the meaning of its paths."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import PrivateAttr, ValidationError

from transforms.config.document import MAX_CONFIG_BYTES, ConfigDocument, ConfigKind, Origin, Problem
from transforms.config.section import Section
from transforms.errors import UsageError
from transforms.first_contact import make_contact
from transforms.patterns import quoted

# The beginning of a path that is not local.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_config(path: str) -> bool:
    """Whether a path is that of a config file, by its name.

    >>> [path for path in ("mix.yaml", "run.yml", "corpora/*.parquet") if is_config(path)]
    ['mix.yaml', 'run.yml']
    """
    return path.endswith((".yaml", ".yml"))


class ConfigFile(Section):
    """A section that is a whole file, and knows the folder that the file's relative paths start from."""

    _folder: str = PrivateAttr(default="")
    _origin: Origin = PrivateAttr(default=Origin())

    def usage_error(self, *problems: Problem) -> UsageError:
        """Problems that came to light after the file was read, each with its line in it, as `section_of` has them."""
        document = self._origin.document or ConfigDocument("config", ConfigKind("config", ""))
        return UsageError(document.message(problems))

    def resolve(self, path: str) -> str:
        """`path` as the config means it; see `resolve_path`."""
        return resolve_path(self._folder, path)


def open_document(
    kind: ConfigKind,
    path: str | os.PathLike[str],
    overrides: Mapping[str, Any] | None = None,
    *,
    given_as: str = "--set",
) -> ConfigDocument:
    """A config file as plain data, with the overrides in it.

    Args:
        kind: its name in errors.
        path: a YAML file, local or on a filesystem that Beam knows (`gs://…`).
        overrides: values by dotted key, as `--set KEY=VALUE` gives them. Text is read as the same text in the file
            would be; other values are taken as they are. They are checked like the file's own.
        given_as: the name of an override in errors.

    Raises:
        UsageError: the file is not there, is no YAML, or is a config of another sort.
    """
    name = os.fspath(path)
    document = ConfigDocument(name, kind, given_as)
    document.parse(_read(name))
    if what := kind.mistake(document.data):
        raise UsageError(f"{name}: {what}")
    for key, value in (overrides or {}).items():
        document.override(key, value)
    return document


def _read(path: str) -> bytes:
    """The bytes of a config file, at most one more than may be."""
    if _SCHEME.match(path):
        # Imported here, since it takes longer than all the rest of reading a config.
        from apache_beam.io.filesystem import CompressionTypes
        from apache_beam.io.filesystems import FileSystems

        make_contact(path)
        try:
            with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as remote:
                return bytes(remote.read(MAX_CONFIG_BYTES + 1))
        except Exception as error:  # Each filesystem has its client's own errors, for access, network and absence.
            problem = f"{path}: cannot read the config: {error}; check the path and your access to it"
            raise UsageError(problem) from error
    try:
        with open(path, "rb") as file:
            return file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: there is no such config; check the path") from error
    except IsADirectoryError as error:
        raise UsageError(f"{path}: is a folder; name the file in it, {os.path.join(path, 'mix.yaml')}") from error
    except OSError as error:
        problem = f"{path}: cannot read the config: {error.strerror}; check the path and your access to it"
        raise UsageError(problem) from error


def section_of[T: ConfigFile](schema: type[T], document: ConfigDocument) -> T:
    """The config that a document holds.

    Raises:
        UsageError: it breaks the schema; the message has a line for each error.
    """
    config: T | None = None
    problems = list(document.problems)
    try:
        config = schema.model_validate(document.data)
    except ValidationError as error:
        problems += (Problem(details["loc"], details["msg"]) for details in error.errors())
    if config is None or problems:
        raise UsageError(document.message(problems))
    name = document.name
    config._origin = Origin(document)
    config._folder = posixpath.dirname(name) if _SCHEME.match(name) else os.path.dirname(os.path.abspath(name))
    return config


def resolve_pattern(folder: str, pattern: str) -> str:
    """The same as `resolve_path` of a glob pattern: the folders that are put before it are names (`quoted`).

    >>> resolve_pattern("/mix[1]", "*.parquet")
    '/mix[[]1]/*.parquet'
    """
    return _resolve(folder, pattern, quoted)


def resolve_path(folder: str, path: str) -> str:
    """`path` as a config in `folder`, local or remote, means it: relative paths start there.

    Absolute paths and those with a scheme (`gs://…`, `hf://…`) stay as they are; `~` is the user's home. A config that
    comes from no file, with the folder "", starts at the working directory.

    >>> resolve_path("gs://bucket/configs", "../../x.json"), resolve_path("/configs", "x.json")
    ('gs://bucket/x.json', '/configs/x.json')
    """
    return _resolve(folder, path, str)


def _resolve(folder: str, path: str, as_part: Callable[[str], str]) -> str:
    if _SCHEME.match(path):
        return path
    user, slash, below = path.partition("/")
    if user.startswith("~"):
        path = as_part(os.path.expanduser(user)) + slash + below
    if os.path.isabs(path):
        return path
    scheme = _SCHEME.match(folder)
    if scheme is None:
        return os.path.normpath(os.path.join(as_part(folder), path))
    bucket, _, inner = folder[scheme.end() :].partition("/")
    # From "/", so that no number of ".." leaves the bucket.
    return scheme.group() + bucket + posixpath.normpath(posixpath.join("/", as_part(inner), path))
