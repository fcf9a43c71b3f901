"""Shows a build's progress: in which phase each dataset is, and how many tokens it has."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from beam_pipelines.console.progress import display
from transforms.building.status import DatasetStatus, StatusReader
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.progress.display import INTERVAL_S, REMOTE_INTERVAL_S, TOKENS, Frame, Row
from transforms.quantities import format_short, format_size
from transforms.recipe.spec import DatasetSpec

Counters = Mapping[str, Mapping[str, int]]
"""The counters of a job's steps so far, by namespace and name."""


@contextlib.contextmanager
def follow_build(
    specs: Sequence[DatasetSpec],
    *,
    quiet: bool,
    begun: bool = False,
    counters: Callable[[], Counters] = lambda: {},
) -> Iterator[None]:
    """Shows the progress of a build while the block runs.

    Args:
        specs: of its datasets.
        quiet: to show nothing.
        begun: whether another process has started it.
        counters: reads the counters of the job, where a service has them; empty elsewhere.
    """
    if quiet:
        yield
        return
    need = {spec.name: spec.need for spec in specs}
    readers = {spec.name: StatusReader(spec, begun=begun) for spec in specs}

    def look() -> Frame:
        return build_frame({name: reader.read() for name, reader in readers.items()}, need, counters())

    interval_s = INTERVAL_S if all(storage.is_local(spec.output) for spec in specs) else REMOTE_INTERVAL_S
    with display("build", TOKENS, quiet=quiet, first=f"planning {_datasets(len(specs))}") as progress:
        with contextlib.suppress(BroetchenError, OSError, ValueError):
            look()  # The work that lies there now is an earlier build's.
        with progress.follow(look, interval_s):
            yield


def build_frame(
    statuses: Mapping[str, DatasetStatus], need: Mapping[str, int], counters: Counters = MappingProxyType({})
) -> Frame:
    """A frame of datasets that need so many tokens, with the counters of their job."""
    work = {name: work_of(status, need[name]) for name, status in statuses.items()}
    rows = [
        Row(name, *work[name], note=_note(status) + _counted(counters, [name]), ended=status.finished)
        for name, status in statuses.items()
    ]
    done, of = (sum(numbers) for numbers in zip(*work.values(), strict=True))
    finished, state = sum(status.finished for status in statuses.values()), _state(statuses)
    amount = f"{format_short(done)} of {format_short(of)} tokens ({100 * done / max(1, of):.0f} %)"
    published = f"{finished} of {_datasets(len(statuses))} published"
    return Frame(
        state,
        Row("all", done, of, f"{state}, {finished}/{_datasets(len(statuses))}"),
        parts=rows,
        work=sum(status.encoded for status in statuses.values()),
        line=f"{state}: {amount}, {published}{_counted(counters, statuses)}",
    )


def work_of(status: DatasetStatus, need: int) -> tuple[int, int]:
    """How many tokens are done, and of how many; those that are taken over are no work.

    A finished dataset has less than it needs where its source is short, or to be repeated.
    """
    if status.finished:
        need = status.tokens
    if not status.taken_over:
        return status.tokens, need
    work = max(1, need - status.taken_over)
    return (work if status.finished else min(work, max(0, status.tokens - status.taken_over))), work


def _state(statuses: Mapping[str, DatasetStatus]) -> str:
    """The phase of the build: that of the dataset that is least far."""
    phases = {status.phase for status in statuses.values()}
    if "encoding" in phases:
        return "encoding"
    if "planning" in phases:
        return "planning"
    # Datasets that are planned wait for a worker, which takes a moment.
    return "encoding" if "planned" in phases else "publishing" if "publishing" in phases else "finishing"


def _note(status: DatasetStatus) -> str:
    if status.phase in ("planning", "planned"):
        return status.phase
    note = f"{format_short(status.tokens)} tokens"
    if status.phase == "publishing":
        renamed, files = status.published
        return f"{note}, publishing" + (f" {renamed} of {files} files" if files else "")
    return f"{note}, {'published' if status.finished else f'encoding, {status.shards} shards'}"


def _counted(counters: Counters, datasets: Iterable[str]) -> str:
    """The counters of these datasets, in words that follow the amount in the output; "" without counters.

    >>> _counted({"broetchen/a": {"tokens": 2_400, "documents": 12, "read_bytes": 9_000}}, ["a", "b"])
    '; counted: 2.40K tokens of 12 documents, 8.8 KiB read'
    """
    own = [counters.get(f"broetchen/{name}", {}) for name in datasets]
    tokens, documents, read = (sum(of.get(name, 0) for of in own) for name in ("tokens", "documents", "read_bytes"))
    if not documents:
        return ""
    return f"; counted: {format_short(tokens)} tokens of {format_short(documents)} documents, {format_size(read)} read"


def _datasets(number: int) -> str:
    return f"{number} dataset{'' if number == 1 else 's'}"
