"""Downloads the hub files that a mix config names, for a build that reads them by `--source-root`, and checks them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from beam_pipelines.config.mix import MixConfig
from beam_pipelines.console.progress import bar
from beam_pipelines.jobs.specs import chosen_datasets
from transforms.errors import BroetchenError, UsageError
from transforms.files.hub_copy import Advance, copy_verified, wrong_copy
from transforms.files.hub_path import SCHEME
from transforms.parquet.source_files import expand_sources
from transforms.progress.display import BYTES

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


@dataclasses.dataclass(frozen=True)
class WrongCopy:
    """A file that is not there as the hub has it: its name here, and its fault, as "is missing"."""

    target: str
    problem: str


def download(found: Sequence[Download], *, quiet: bool) -> int:
    """Fetches the missing files, four at a time; returns how many files were fetched.

    Raises:
        BroetchenError: a file cannot be fetched or written; run again, it goes on where it was.
    """
    return sum(_of_each(copy_verified, found, "downloading", quiet))


def check(found: Sequence[Download], *, quiet: bool) -> list[WrongCopy]:
    """Reads the copies, and compares the hash of each file with the hub's; fetches nothing of the content.

    Raises:
        BroetchenError: a file cannot be read.
    """
    problems = _of_each(wrong_copy, found, "checking", quiet)
    return [WrongCopy(file.target, what) for file, what in zip(found, problems, strict=True) if what is not None]


def _of_each[T](
    work: Callable[[str, str, int, Advance], T], copies: Sequence[Download], doing: str, quiet: bool
) -> list[T]:
    stopped = threading.Event()
    with (
        bar(doing, sum(file.size for file in copies), BYTES, quiet=quiet) as progress,
        ThreadPoolExecutor(_PARALLEL, thread_name_prefix=doing) as pool,
    ):

        def advance(amount: int) -> None:
            if stopped.is_set():  # Nobody asks for this file any more.
                raise BroetchenError("stopped")
            progress.advance(amount)

        done = [pool.submit(work, file.source, file.target, file.size, advance) for file in copies]
        try:
            return [future.result() for future in done]
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
