"""Finds the present files of sources on the hub that a config does not name file by file, at a commit."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from beam_pipelines.config.sections import DatasetConfig
from beam_pipelines.config.sources import HubDataset
from transforms.errors import BroetchenError, one_line
from transforms.files.hub_path import SCHEME, HubPath
from transforms.left_out import allow
from transforms.patterns import quoted

_LOGGER = logging.getLogger(__name__)


def pinned_datasets(datasets: Mapping[str, DatasetConfig]) -> dict[str, DatasetConfig]:
    """The same datasets with each of their hub sources as pinned paths; the hub is asked only for those that are not.

    Raises:
        BroetchenError: the hub does not know a repository, revision, configuration or split, or cannot be reached.
    """
    return {
        name: dataset.model_copy(update={"source": tuple(_pinned(name, dataset))}) for name, dataset in datasets.items()
    }


def _pinned(name: str, dataset: DatasetConfig) -> Iterator[str]:
    for source in dataset.source:
        if isinstance(source, HubDataset):
            where = HubPath(source.dataset, source.revision or "", "")
            yield from _split_files(name, source, _commit(name, where))
        elif source.startswith(f"{SCHEME}://") and not (where := HubPath.parse(source)).pinned:
            yield str(HubPath(where.repository, _commit(name, where), where.path))
        else:
            yield source


def _commit(name: str, where: HubPath) -> str:
    """The full commit that a revision of a repository is now; the hub must know them."""
    from transforms.files.hub import explain_hub_errors, hub_api, hub_endpoint

    with explain_hub_errors(f"dataset {name}: {where}"):
        found = hub_api(hub_endpoint()).dataset_info(where.repository, revision=where.revision or None)
    commit = str(found.sha)
    if not where.pinned:
        _LOGGER.warning(
            "dataset %s: %s is not pinned, and is now at %s; name it to build the same again",
            name,
            where.repository,
            commit,
        )
    return commit


def _split_files(name: str, source: HubDataset, commit: str) -> list[str]:
    """The paths of a split's files at a commit, as `datasets` resolves them."""
    from transforms.files.hub import explain_hub_errors

    subject = f"dataset {name}: {source.dataset}"
    with explain_hub_errors(subject):
        allow("pandas")
        import datasets

        datasets.disable_progress_bars()
        try:
            builder = datasets.load_dataset_builder(source.dataset, name=source.config, revision=commit)
        except ValueError as error:  # an unknown configuration, or none where there are several
            raise BroetchenError(f"{subject}: {one_line(error)}; set `config` to one of them") from error
        except datasets.exceptions.DatasetsError as error:
            raise BroetchenError(f"{subject}: {one_line(error)}; name its files as hf://datasets/… paths") from error
    splits = dict(builder.config.data_files or {})
    if source.split not in splits:
        raise BroetchenError(f"{subject}: no split {source.split!r}; it has {', '.join(map(str, splits)) or 'none'}")
    files = [str(path) for path in splits[source.split]]
    if others := [path for path in files if not path.endswith(".parquet")]:
        raise BroetchenError(
            f"{subject}: {others[0]} is not parquet, which is what is read here; choose another dataset"
        )
    return [quoted(path) for path in files]
