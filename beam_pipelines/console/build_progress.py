"""Shows how a build gets on: in which phase each dataset is, and how many tokens it has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from beam_pipelines.console.progress import display
from transforms.building.status import DatasetStatus, StatusReader
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.progress.display import INTERVAL_S, REMOTE_INTERVAL_S, TOKENS, Frame, Row
from transforms.quantities import format_short
from transforms.recipe.spec import DatasetSpec


@contextlib.contextmanager
def follow_build(specs: Sequence[DatasetSpec], *, quiet: bool, begun: bool = False) -> Iterator[None]:
    """Shows the progress of a build while the block runs.

    Args:
        specs: of its datasets.
        quiet: to show nothing.
        begun: whether another process has started it.
    """
    if quiet:
        yield
        return
    need = {spec.name: spec.need for spec in specs}
    readers = {spec.name: StatusReader(spec, begun=begun) for spec in specs}

    def look() -> Frame:
        return build_frame({name: reader.read() for name, reader in readers.items()}, need)

    interval_s = INTERVAL_S if all(storage.is_local(spec.output) for spec in specs) else REMOTE_INTERVAL_S
    with display("build", TOKENS, quiet=quiet, first=f"planning {_datasets(len(specs))}") as shown:
        with contextlib.suppress(BroetchenError, OSError, ValueError):
            look()  # What lies there now is an earlier build's.
        with shown.follow(look, interval_s):
            yield


def build_frame(statuses: Mapping[str, DatasetStatus], need: Mapping[str, int]) -> Frame:
    """What there is to say of datasets that need so many tokens."""
    work = {name: work_of(status, need[name]) for name, status in statuses.items()}
    rows = [Row(name, *work[name], note=_note(status), ended=status.finished) for name, status in statuses.items()]
    done, of = (sum(numbers) for numbers in zip(*work.values(), strict=True))
    finished, state = sum(status.finished for status in statuses.values()), _state(statuses)
    amount = f"{format_short(done)} of {format_short(of)} tokens ({100 * done / max(1, of):.0f} %)"
    published = f"{finished} of {_datasets(len(statuses))} published"
    return Frame(
        state,
        Row("all", done, of, f"{state}, {finished}/{_datasets(len(statuses))}"),
        parts=rows,
        work=sum(status.encoded for status in statuses.values()),
        line=f"{state}: {amount}, {published}",
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
    # Those that are planned wait for a worker, which takes a moment.
    return "encoding" if "planned" in phases else "publishing" if "publishing" in phases else "finishing"


def _note(status: DatasetStatus) -> str:
    if status.phase in ("planning", "planned"):
        return status.phase
    note = f"{format_short(status.tokens)} tokens"
    if status.phase == "publishing":
        renamed, files = status.published
        return f"{note}, publishing" + (f" {renamed} of {files} files" if files else "")
    return f"{note}, {'published' if status.finished else f'encoding, {status.shards} shards'}"


def _datasets(number: int) -> str:
    return f"{number} dataset{'' if number == 1 else 's'}"
