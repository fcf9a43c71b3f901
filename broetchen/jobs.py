"""The jobs as functions: what `broetchen COMMAND` does, with values in the place of tables.

They print nothing and keep the process's file descriptors as they are. Where the process has threads, as a notebook
has, worker processes are started as fresh Pythons, which takes five seconds, and else forked. One job runs at a time.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

import numpy as np

from beam_pipelines.config.mix import MixConfig, load_config
from beam_pipelines.jobs import build as building
from beam_pipelines.jobs import count as counting
from beam_pipelines.jobs import plan as planning
from beam_pipelines.jobs import verify as verifying
from transforms.counting.text_count import TextCount
from transforms.errors import UsageError
from transforms.tokenizer.spec import Engine

Path = str | os.PathLike[str]
"""A path, local or on any filesystem that Beam knows (`gs://…`)."""
Mix = MixConfig | Path
"""A mix config, or the path of one."""


_one_at_a_time = threading.RLock()


def _silent[**Args, Result](job: Callable[Args, Result]) -> Callable[Args, Result]:
    """Keeps Beam from setting up logging, as it does where nobody has: a root logger with a handler it leaves alone.

    Jobs of several threads wait for each other, since a job watches over the worker processes of this whole process.
    """

    @functools.wraps(job)
    def silent(*args: Args.args, **kwargs: Args.kwargs) -> Result:
        root, nothing = logging.getLogger(), logging.NullHandler()
        with _one_at_a_time:
            root.addHandler(nothing)
            try:
                return job(*args, **kwargs)
            finally:
                root.removeHandler(nothing)

    return silent


@_silent
def load_mix(path: Path, /, *, source_root: Path | None = None, **changes: Any) -> MixConfig:
    """Reads and checks a mix config, with some of its keys changed.

    Args:
        path: a YAML file, local or on any filesystem that Beam knows; docs/config.md says what it holds.
        source_root: where `broetchen download` has put the hub's files that the config names.
        **changes: values by key. A mapping changes the keys that it has and leaves the others:
            `load_mix("mix.yaml", total_tokens="1M", datasets={"german": {"share": "60%"}})`. Quantities may be text, as
            in the file.

    Raises:
        UsageError: the file is not there, is no YAML, or breaks the schema; the message has a line for each error.
        BroetchenError: the hub does not tell what an unpinned source, or one by name of dataset, is.
    """
    config = load_config(path, overrides=dict(_flat(changes)), given_as="argument")
    return config if source_root is None else config.with_source_root(os.fspath(source_root))


def _flat(changes: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in changes.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        elif isinstance(value, os.PathLike):
            yield f"{above}{key}", os.fspath(value)
        else:
            yield f"{above}{key}", value.item() if isinstance(value, np.generic) else value


def _loaded(mix: Mix) -> MixConfig:
    return mix if isinstance(mix, MixConfig) else load_config(mix)


def _several(name: str, given: Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        raise UsageError(f"{name}={given!r}: is one text; give a list, such as [{given!r}]")
    return tuple(given)


def _known(engine: Engine) -> Engine:
    if engine not in get_args(Engine):
        raise UsageError(f"engine={engine!r}: there is no such engine; there are {', '.join(get_args(Engine))}")
    return engine


def _path(given: Path | None) -> str | None:
    return None if given is None else os.fspath(given)


@_silent
def plan(
    mix: Mix, *, datasets: Iterable[str] = (), engine: Engine = "auto", ledger: Path | None = None
) -> list[planning.DatasetOutlook]:
    """Tells what a build would read and write, from footers and a small sample of each source. Builds nothing.

    Args:
        mix: a config or its path.
        datasets: names of datasets of the config; all of them by default.
        engine: what encodes; "auto" takes gigatoken where it gives the ids of `tokenizers`.
        ledger: a folder of counts, as `count` fills it: row groups that it knows are not estimated.

    Returns:
        one outlook for each dataset, in the order of the config.

    Raises:
        UsageError: the config, the tokenizer, the engine or a dataset's name cannot be used.
        BroetchenError: a source is missing or damaged.
    """
    return planning.plan(
        _loaded(mix), datasets=_several("datasets", datasets), engine=_known(engine), ledger=_path(ledger)
    )


@_silent
def build(
    mix: Mix,
    output: Path,
    *,
    datasets: Iterable[str] = (),
    engine: Engine = "auto",
    overwrite: bool = False,
    grow: Path | None = None,
    beam_options: Iterable[str] = (),
) -> building.BuildSummary:
    """Builds the datasets of a mix, each to its exact token budget. A build that was stopped goes on where it was.

    Args:
        mix: a config or its path.
        output: where the datasets go: a folder or `gs://bucket/folder`.
        datasets: names of datasets of the config; all of them by default.
        engine: what encodes; "auto" takes gigatoken where it gives the ids of `tokenizers`.
        overwrite: whether to replace datasets that another config left there.
        grow: an earlier output with smaller or larger datasets of this mix, whose shards are taken over; it stays.
        beam_options: of Apache Beam, as on the command line: `["--runner=DataflowRunner", …]`. Without any, a large
            local build takes a worker process for each processor; `["--direct_num_workers=1"]` keeps it in this one.

    Returns:
        the manifests by folder, which of them this call built, and how long it took.

    Raises:
        UsageError: the config, the tokenizer, an option or a dataset's name cannot be used; nothing was started.
        BroetchenError: a source is missing, damaged or short, an output cannot be written, or another build is at
            work there.
    """
    return building.build(
        _loaded(mix),
        os.fspath(output),
        datasets=_several("datasets", datasets),
        engine=_known(engine),
        overwrite=overwrite,
        grow=_path(grow),
        beam_arguments=_several("beam_options", beam_options),
        quiet=True,
    )


@_silent
def verify(
    output: Path,
    *,
    engine: Engine = "auto",
    quick: bool = False,
    against_source: int = 0,
    seed: int | None = None,
    config: Path | None = None,
    source_root: Path | None = None,
    digest: str | None = None,
    beam_options: Iterable[str] = (),
) -> verifying.Verification:
    """Reads every record back with Grain's reader, and holds it against the manifests; see docs/verify.md.

    Args:
        output: a folder of built datasets, or one dataset.
        engine: what counts the tokens of datasets in text format.
        quick: whether to look at names, sizes and manifests alone.
        against_source: how many row groups of the sources to encode again and compare.
        seed: which ones; by default others each time.
        config: the mix config, at whose folder relative paths of the sources start.
        source_root: where `broetchen download` has put the hub's files.
        digest: of the manifests, as an earlier call gave it.
        beam_options: as for `build`.

    Returns:
        the manifests of the datasets, all sound, by folder; with `warnings`, what was `unchecked`, and the `digest`.

    Raises:
        UsageError: options do not go together.
        BroetchenError: no dataset is there, or something is wrong; the message has a line for each thing.
    """
    against = None
    if against_source:
        against = verifying.AgainstSource.chosen(against_source, seed, _path(config), _path(source_root))
    return verifying.verify(
        os.fspath(output),
        engine=_known(engine),
        quick=quick,
        against=against,
        digest=digest,
        beam_arguments=_several("beam_options", beam_options),
    )


@_silent
def count(
    what: Mix | Sequence[Mix],
    *,
    datasets: Iterable[str] = (),
    tokenizer: Path | None = None,
    text_column: str = "text",
    engine: Engine = "auto",
    ledger: Path | None = None,
    beam_options: Iterable[str] = (),
) -> dict[str, TextCount]:
    """Counts subtokens: of a mix's sources, of parquet files, or of built datasets. Reads all of each.

    Args:
        what: mix configs or their paths (`.yaml`), parquet files or patterns of them, folders of built datasets; or one
            of these.
        datasets: of configs and built outputs, only these.
        tokenizer, text_column: for parquet files; the others name theirs.
        engine: what encodes; counts do not depend on it.
        ledger: a folder of counts, which is looked up and filled.
        beam_options: as for `build`.

    Returns:
        the counts by name, in the order of `what`: a source by its dataset, a split as `<dataset>/<split>`, parquet
        files by their pattern. A name that comes again gets a number.

    Raises:
        UsageError: a config, a tokenizer, the engine or a dataset's name cannot be used.
        BroetchenError: a source is missing, damaged or without text, or a built shard is damaged.
    """
    given = [what] if isinstance(what, MixConfig | str | os.PathLike) else what
    return counting.count(
        [one if isinstance(one, MixConfig) else os.fspath(one) for one in given],
        load_config,
        datasets=_several("datasets", datasets),
        tokenizer=_path(tokenizer),
        text_column=text_column,
        engine=_known(engine),
        ledger=_path(ledger),
        beam_arguments=_several("beam_options", beam_options),
    )
