"""Writes the card of an output once its datasets are finished, and never over a file of a user's."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from transforms.card import mix as mix_file
from transforms.card import readme
from transforms.card.mix import CardMix, mix_text
from transforms.card.readme import DatasetFacts, readme_text, versions_of
from transforms.card.seal import is_sealed
from transforms.dataset.manifest import read_manifest
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.untrusted import check_regular

NAMES = (mix_file.NAME, readme.NAME)
"""The files of a card, in the order in which they are written."""

_MOST_BYTES = 64 << 20

_LOGGER = logging.getLogger(__name__)


def write_card(output: str, mix: CardMix) -> None:
    """Writes the card of the mix's datasets that are finished at an output; may be repeated.

    A card that is the same already is not written again. Where no dataset is finished, there is no card. A file of this
    name that no build has written, or that was edited since, stays, with a warning.

    Raises:
        BroetchenError: a file cannot be written.
    """
    datasets = list(_finished(output, mix))
    if not datasets:
        remove_card(output)
        return
    texts = (mix_text(mix, versions_of(datasets)), readme_text(mix, datasets))
    for name, text in zip(NAMES, texts, strict=True):
        path, data = storage.join(output, name), text.encode()
        current = _read(path)
        if current == data:
            continue
        if current is None or is_sealed(current):
            storage.write_bytes(path, data)
        else:
            _LOGGER.warning(
                "%s: is not as a build wrote it, and is left as it is; move it away and build again for one that tells "
                "of what is there now",
                path,
            )


def remove_card(output: str) -> None:
    """Deletes the card of an output, before the datasets on it are replaced; a file that is a user's stays.

    Raises:
        BroetchenError: a file cannot be deleted.
    """
    for name in reversed(NAMES):
        path = storage.join(output, name)
        if (found := _read(path)) is not None and is_sealed(found):
            storage.delete([path])


def sweep_card(output: str) -> None:
    """Deletes files that builds left when they were killed in writing a card; for when no build is at work.

    Raises:
        BroetchenError: a file cannot be deleted.
    """
    mine = tuple(f".{name}." for name in NAMES)
    names = {path: path.rpartition("/")[2] for path in storage.list_marks(output)}
    storage.delete([path for path, name in names.items() if name.startswith(mine) and storage.is_temporary(name)])


def _finished(output: str, mix: CardMix) -> Iterator[DatasetFacts]:
    for name in mix.datasets:
        try:
            manifest = read_manifest(storage.join(output, name))
        except BroetchenError as error:  # of a dataset that is not built now
            _LOGGER.warning("%s, and left out of %s", error, readme.NAME)
            continue
        if manifest is not None and mix.has(name, manifest):
            yield DatasetFacts.of(manifest)


def _read(path: str) -> bytes | None:
    """The content of a file; None where there is none, and empty where it is no regular file or a huge one."""
    try:
        check_regular(path)
    except BroetchenError:
        return b""
    if not storage.exists(path):
        return None
    return storage.read_bytes(path) if storage.size(path) <= _MOST_BYTES else b""
