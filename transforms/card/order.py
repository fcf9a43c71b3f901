"""The order in which an output's datasets are shown: that of the config beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from transforms.config.document import MAX_CONFIG_BYTES, ConfigDocument, ConfigKind
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.untrusted import read_bounded

_NAME = "mix.yaml"  # of a card; `transforms.card.mix` imports too much for a quick look at unfinished work


def config_order(output: str) -> Callable[[str], tuple[int, str]]:
    """A key to sort names of datasets by: as the output's `mix.yaml` has them, and those that it has not by name.

    Args:
        output: of builds. It has no such file before a first dataset is finished; a file there is not believed, and
            one that is no config orders nothing.
    """
    names = _names(f"{output.rstrip('/')}/{_NAME}")
    places = {name: place for place, name in enumerate(names)}
    return lambda name: (places.get(name, len(places)), name)


def in_config_order[T](output: str, found: Mapping[str, T]) -> dict[str, T]:
    """The same mapping by folder, in the order of `config_order`."""
    key = config_order(output)
    return {folder: found[folder] for folder in sorted(found, key=lambda folder: key(folder.rpartition("/")[2]))}


def _names(path: str) -> list[str]:
    try:
        if not storage.exists(path):
            return []
        document = ConfigDocument(path, ConfigKind("mix config", path, floats=True))
        document.parse(read_bounded(path, MAX_CONFIG_BYTES))
    except BroetchenError:
        return []
    datasets = document.data.get("datasets") if isinstance(document.data, dict) else None
    return list(datasets) if isinstance(datasets, dict) else []
