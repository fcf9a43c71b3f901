"""Looks, before a job starts, at the sources that a config names: they must exist, with a column of text.

A problem is an error of the config, with its line and key. The files of a source are listed, and the footer of one is
read; the job then reads all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import pyarrow as pa

from beam_pipelines.config.mix import MixConfig
from transforms.config.document import Loc, Problem
from transforms.errors import BroetchenError, UnreachableError
from transforms.files import storage
from transforms.files.listing import Found, expand
from transforms.parquet.exclusion import Exclusion
from transforms.parquet.footer import read_schema, text_column_problem
from transforms.parquet.row_filter import FileFilter, RowFilter

_LOGGER = logging.getLogger(__name__)

# Files that people have in the place of parquet; with other endings some have parquet.
_OTHERS = (".arrow", ".arrows", ".csv", ".json", ".jsonl", ".feather", ".tsv", ".txt", ".gz", ".xz", ".zip", ".zst")


def check_sources(config: MixConfig, datasets: Sequence[str], *, elsewhere: bool = False) -> None:
    """Looks at the sources of `datasets`.

    Args:
        elsewhere: whether other machines read them, which may have a disk that this one lacks, or the permission for a
            bucket. A source that only they may reach is told of, and left to them.

    Raises:
        UsageError: a source names no files, or none of parquet, or they have no such column of text. The message has a
            line for each.
        BroetchenError: a file is damaged, or a service does not answer.
    """
    for name in datasets:
        _warn_of_budget(config, name)
    problems = [problem for name in datasets for problem in _source_problems(config, name, elsewhere)]
    if problems:
        raise config.usage_error(*problems)


def _warn_of_budget(config: MixConfig, name: str) -> None:
    budget = config.budgets()[name]
    if budget.eval > budget.train:
        what = f"{budget.eval:,} held-out tokens are more than the {budget.train:,} to train on; is that meant?"
        _LOGGER.warning("%s", config.usage_error(Problem(("datasets", name, "eval_tokens"), what)))


def _source_problems(config: MixConfig, name: str, elsewhere: bool) -> Iterator[Problem]:
    place: Loc = ("datasets", name, "source")
    several = len(config.sources(name)) > 1
    all_files: list[Found] = []
    for number, pattern in enumerate(config.sources(name)):
        here = (*place, number) if several else place
        try:
            files = expand(pattern)
        except BroetchenError as error:
            if elsewhere and _may_be_there(pattern, error):
                _leave(name, error)
                continue
            if isinstance(error, UnreachableError):
                raise
            yield Problem(here, str(error))
            continue
        if other := next((file.path for file in files if file.path.lower().endswith(_OTHERS)), None):
            yield Problem(here, f"{other} is no parquet file; convert it to parquet first, or name those that are")
            continue
        all_files += files
    if all_files:
        first = min(all_files, key=lambda file: file.path)
        try:
            schema = read_schema(first.path, first.bytes)
        except BroetchenError as error:
            if not (elsewhere and _may_be_there(first.path, error)):
                raise
            _leave(name, error)
            return
        if problem := text_column_problem(schema, config.datasets[name].text_column):
            yield Problem(("datasets", name, "text_column"), f"{first.path}: {problem}")
        yield from _filter_problems(config, name, first.path, schema)


def _may_be_there(path: str, error: BroetchenError) -> bool:
    """Whether another machine may read a source that this one cannot: a store's error may be the account's alone."""
    return storage.is_local(path) or error.__cause__ is not None


def _leave(name: str, error: BroetchenError) -> None:
    _LOGGER.warning("dataset %s is left to the workers, since this machine does not reach its source: %s", name, error)


def _filter_problems(config: MixConfig, name: str, path: str, schema: pa.Schema) -> Iterator[Problem]:
    dataset = config.datasets[name]
    exclude = None
    if dataset.exclude is not None:
        exclude = Exclusion(dataset.exclude.column, config.resolve(dataset.exclude.values), "")
    for key, rows in (("filters", RowFilter.of(dataset.predicates)), ("exclude", RowFilter.of([], exclude))):
        try:
            if rows is not None:
                FileFilter(rows, path, schema)
        except BroetchenError as error:
            yield Problem(("datasets", name, key), str(error))
