"""How a dataset that is there differs from the one that is to be built in its place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transforms.dataset.manifest import NEWEST_FORMAT, Manifest, read_manifest
from transforms.errors import BroetchenError, UnreachableError, UsageError, listed, without_controls
from transforms.parquet.footer import SourceFile
from transforms.recipe.spec import DatasetSpec

_MOST_TOLD = 6
_SHOWN_CHARACTERS = 80
_ABSENT = object()


def check_same_config(spec: DatasetSpec) -> None:
    """Checks, before its source is read, that no dataset of another config or tokenizer lies where one is to be built.

    Raises:
        UsageError: one does, and is not to be replaced.
    """
    if spec.overwrite:
        return
    try:
        manifest = read_manifest(spec.folder)
    except UnreachableError:
        raise
    except BroetchenError:
        return  # One that is damaged is the build's to report.
    if manifest is None or manifest.format_version < NEWEST_FORMAT:
        return
    if differences := list(config_differences(spec, manifest)):
        raise other_dataset(spec, differences)


def other_dataset(spec: DatasetSpec, differences: Sequence[str]) -> UsageError:
    """The error where another dataset lies in the place of the one to build, with the differences."""
    return UsageError(
        f"{spec.folder}: holds a dataset of another config, source or tokenizer: {listed(differences, _MOST_TOLD)}; "
        "choose another --output, or replace it with --overwrite"
    )


def config_differences(spec: DatasetSpec, manifest: Manifest) -> Iterator[str]:
    """Keys of the config with the values that the one dataset has and the other, as a config writes them.

    Args:
        spec: of the dataset that is to be built.
        manifest: of the dataset that is there.
    """
    there, here = _by_key(spec, manifest.config), _by_key(spec, json.loads(json.dumps(spec.config)))
    for key in dict.fromkeys([*here, *there]):
        old, new = there.get(key, _ABSENT), here.get(key, _ABSENT)
        if old != new:
            yield f"{_value_text(key)} is {_value_text(old)} there and {_value_text(new)} here"
    if manifest.tokenizer.sha256 != spec.tokenizer.sha256:
        old, new = manifest.tokenizer.sha256[:12], spec.tokenizer.sha256[:12]
        yield f"the tokenizer's SHA-256 is {old}… there and {new}… here"


def source_differences(spec: DatasetSpec, source: Sequence[SourceFile], manifest: Manifest) -> Iterator[str]:
    """Files of the source that the dataset that is there was built from in other content, or under other names.

    A manifest names only the files of which it holds documents, so those that are new after them are not told.
    """
    here = {spec.shown_path(file.path): file for file in source}
    gone = [entry.path for entry in manifest.source if entry.path not in here]
    changed = [
        entry.path
        for entry in manifest.source
        if (file := here.get(entry.path)) and (file.size, file.footer_sha256) != (entry.size, entry.footer_sha256)
    ]
    for paths, what in ((gone, "not in the source any more"), (changed, "another since")):
        if paths:
            yield f"{listed(map(without_controls, paths), 2)} {'is' if len(paths) == 1 else 'are'} {what}"


def version_differences(versions: Mapping[str, str], manifest: Manifest) -> Iterator[str]:
    """Libraries that decide bytes and had other versions."""
    for name, version in versions.items():
        if (old := manifest.versions.get(name)) is not None and old != version:
            yield f"{name} was {without_controls(old)} there and is {version} here"


def _by_key(spec: DatasetSpec, config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the part of a config that decides a dataset's bytes, by the keys that a config has for them."""
    found: dict[str, Any] = {}
    for section, values in config.items():
        if not isinstance(values, Mapping):
            found["tokenizer.special_tokens" if section == "special_tokens" else section] = values
            continue
        name = f"datasets.{spec.name}" if section == "dataset" else section
        found |= {f"{name}.{key}": value for key, value in values.items()}
    return found


def _value_text(value: object) -> str:
    if value is _ABSENT:
        return "not set"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = without_controls(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
