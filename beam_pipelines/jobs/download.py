"""Downloads the hub files that a mix config names, so that a build can read them by `--source-root`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from beam_pipelines.config.mix import MixConfig
from beam_pipelines.console import terminal
from beam_pipelines.jobs.specs import chosen_datasets
from transforms.errors import UsageError
from transforms.files.hub_copy import copy_verified
from transforms.files.hub_path import SCHEME
from transforms.parquet.source_files import expand_sources

_PARALLEL = 4


@dataclasses.dataclass(frozen=True)
class Download:
    """One file: where it is, where it goes, and its size in bytes."""

    source: str
    target: str
    size: int


def downloads(config: MixConfig, to: str, datasets: Sequence[str] = ()) -> list[Download]:
    """The files of the hub that `datasets`, or all of the config, name. Files of other sources stay where they are.

    Raises:
        UsageError: the config names no file of the hub.
        BroetchenError: a pattern matches nothing, or the hub cannot be asked.
    """
    patterns = [source for name in chosen_datasets(config, datasets) for source in config.sources(name)]
    at_hub = [pattern for pattern in patterns if pattern.startswith(f"{SCHEME}://")]
    if not at_hub:
        raise UsageError("the config names no files of the hub (hf://…); there is nothing to download")
    rooted = config.with_source_root(to)
    return [Download(path, rooted.resolve(path), size) for path, size in expand_sources(at_hub)]


def download(found: Sequence[Download], *, quiet: bool) -> int:
    """Fetches what is not there yet, four files at a time; returns how many files were fetched.

    Raises:
        BroetchenError: a file cannot be fetched or written; run again, it goes on where it was.
    """
    with (
        _progress(sum(file.size for file in found), quiet) as advance,
        ThreadPoolExecutor(_PARALLEL, thread_name_prefix="download") as pool,
    ):
        fetched = [pool.submit(copy_verified, file.source, file.target, file.size, advance) for file in found]
        try:
            return sum(file.result() for file in fetched)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextlib.contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    console = terminal.console()
    columns = (
        TextColumn("downloading"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task("downloading", total=total)
        yield lambda amount: progress.advance(task, amount)
