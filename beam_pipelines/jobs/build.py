"""The main job: builds the datasets of a mix, each to its exact token budget."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.resources
import json
import posixpath
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set

import apache_beam as beam

from beam_pipelines.config.first_look import check_sources
from beam_pipelines.config.mix import MixConfig, load_config
from beam_pipelines.console.build_progress import follow_build
from beam_pipelines.jobs.specs import card_mix, chosen_datasets, dataset_specs, keep_tokenizer, load_config_tokenizer
from beam_pipelines.runners import dataflow_cost
from beam_pipelines.runners.dataflow import check_reachable
from beam_pipelines.runners.job import job_options, run_job
from beam_pipelines.runners.local import work_seconds
from beam_pipelines.runners.remote.run import follow, remote_runner
from beam_pipelines.runners.remote.services import DATAFLOW, asked_with, read_counters
from transforms.building.datasets import BuildDatasets
from transforms.building.grow import check_old_output
from transforms.building.status import tokens_left
from transforms.building.work_folder import sweep_work
from transforms.card.write import sweep_card
from transforms.dataset.manifest import Manifest, read_manifest
from transforms.encoding.pool import expected_engine, warm_encoder
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.locks.held import JobGoesOnError
from transforms.locks.output import hold_output
from transforms.locks.owner import LockOwner
from transforms.recipe.differences import check_same_config
from transforms.recipe.spec import DatasetSpec
from transforms.tokenizer.spec import Engine

# With gigatoken in one process that has two processors, start-up left out; measured on the benchmark's corpus.
_TOKENS_PER_S = 14_000_000


@dataclasses.dataclass(frozen=True)
class BuildSummary:
    """The result of a build.

    Attributes:
        manifests: of all the datasets asked for, by folder.
        built: the folders of those that this run built; the others were finished before.
        seconds: from start to end.
        template: where the job was staged to be started later (`--template_location`); then nothing was built.
        tokens_before: of the finished shards that an earlier run had left for the datasets in `built`.
    """

    manifests: Mapping[str, Manifest]
    built: Set[str]
    seconds: float
    template: str | None = None
    tokens_before: int = 0


def build(
    config: MixConfig,
    output: str,
    *,
    datasets: Sequence[str] = (),
    engine: Engine = "auto",
    overwrite: bool = False,
    grow: str | None = None,
    beam_arguments: Sequence[str] = (),
    quiet: bool = False,
) -> BuildSummary:
    """Builds `datasets`, or all of the config, into `output`, which may be on any filesystem that Beam writes.

    Args:
        grow: the output of an earlier build of the same datasets in other sizes, from which shards are taken that
            both have; it stays as it is, and workers read it as they do sources.

    Raises:
        UsageError: the config, the tokenizer or the engine cannot be used; nothing was started.
        BroetchenError: a source is missing, damaged or short, an output cannot be written, or another build is at
            work there.
    """
    started = time.monotonic()
    output = storage.without_slash(output)
    job_options(beam_arguments, output)  # Their faults are told before anything is loaded.
    names = chosen_datasets(config, datasets)
    tokenizer = load_config_tokenizer(config)
    specs = dataset_specs(config, names, tokenizer, output=output, engine=engine, overwrite=overwrite, grow=grow)
    check_grown(specs)
    service = remote_runner(beam_arguments)
    on_dataflow = service == DATAFLOW
    if on_dataflow:
        check_reachable(specs)
    check_sources(config, names, elsewhere=service is not None)
    for spec in specs:
        check_same_config(spec)
    known, need = specs[0].tokenizer, sum(spec.need for spec in specs)
    tokens_per_s = dataflow_cost.TOKENS_PER_S if on_dataflow else _TOKENS_PER_S
    work_s = work_seconds(need, tokens_per_s, expected_engine(known, engine))
    warm = functools.partial(warm_encoder, known, engine)
    with contextlib.ExitStack() as stack:
        job = stack.enter_context(run_job(beam_arguments, work_s=work_s, output=output, prepare=warm))
        left: dict[str, int] = {}
        before = {spec.folder: _manifest_or_none(spec.folder) for spec in specs}
        what, goes_on = _what_is_built(specs), asked_with(beam_arguments)
        try:
            lock = stack.enter_context(hold_output(output, job=job.remote(what), goes_on=goes_on))
        except JobGoesOnError as other:
            if other.job.build != what:
                raise
            counters = functools.partial(read_counters, other.job, beam_arguments)
            with follow_build(specs, quiet=quiet, begun=True, counters=counters):
                follow(other.job, beam_arguments)
            _clear_lock(output, goes_on)
        else:
            keep_tokenizer(tokenizer, output)
            for spec in specs:
                sweep_work(spec.work_root)
            left = {spec.folder: tokens_left(spec.work_root) for spec in specs if before[spec.folder] is None}
            token = None if job.template else lock.token
            with follow_build(specs, quiet=quiet, counters=job.counters), job.pipeline(lock, what) as pipeline:
                _ = (
                    pipeline
                    | beam.Impulse()
                    | "Datasets" >> beam.ParDo(_Specs(specs)).with_output_types(DatasetSpec)
                    | "Build" >> BuildDatasets(token, card_mix(config, tokenizer))
                )
        if job.template is not None:
            return BuildSummary({}, set(), time.monotonic() - started, job.template)
        manifests = {spec.folder: _finished_manifest(spec.folder) for spec in specs}
        # Of builds that were killed while they put the tokenizer or the card there.
        storage.delete_temporary(posixpath.dirname(known.path))
        sweep_card(output)
    built = {folder for folder, manifest in manifests.items() if manifest != before[folder]}
    done_before = sum(tokens for folder, tokens in left.items() if folder in built)
    return BuildSummary(manifests, built, time.monotonic() - started, tokens_before=done_before)


def check_grown(specs: Sequence[DatasetSpec]) -> None:
    """Checks datasets that are grown from others, as far as that can be done before a job is started.

    Raises:
        UsageError: they cannot be; see `transforms.building.grow.check_old_output`.
        BroetchenError: a manifest of the old output is damaged.
    """
    if any(spec.grow is not None and spec.overwrite for spec in specs):
        raise UsageError("--grow and --overwrite exclude each other: choose an --output where nothing lies")
    check_old_output(specs)


class _Specs(beam.DoFn):
    """Names the datasets to build. `beam.Create` would write them into the job's graph three times."""

    def __init__(self, specs: Iterable[DatasetSpec]) -> None:
        self._specs = list(specs)

    def process(self, _: bytes) -> Iterator[DatasetSpec]:
        yield from self._specs


def _what_is_built(specs: Sequence[DatasetSpec]) -> str:
    """A SHA-256 that two builds share if they have the same datasets, configs and tokenizer."""
    parts = [[spec.folder, spec.config, spec.sources, spec.tokenizer.sha256] for spec in specs]
    return hashlib.sha256(json.dumps(sorted(parts), sort_keys=True, default=str).encode()).hexdigest()


def _clear_lock(output: str, goes_on: Callable[[LockOwner], bool]) -> None:
    """Removes the lock of a job that has ended, where the process that started it is gone."""
    with contextlib.suppress(BroetchenError), hold_output(output, goes_on=goes_on):
        pass


def _finished_manifest(folder: str) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None:
        raise BroetchenError(f"{folder}: the job ended without a manifest there; see its log, and run it again")
    return manifest


def _manifest_or_none(folder: str) -> Manifest | None:
    # One that is damaged is the build's to report, or to replace.
    with contextlib.suppress(BroetchenError):
        return read_manifest(folder)
    return None


def build_demo(
    output: str, *, engine: Engine = "auto", beam_arguments: Sequence[str] = (), quiet: bool = False
) -> BuildSummary:
    """Builds the demo's mix, over an earlier demo of another version or config; see `build`.

    Raises:
        UsageError: a folder of one of its datasets holds something else than a demo's.
        BroetchenError: as `build`.
    """
    config = demo_config()
    for name in config.datasets:
        folder = storage.join(storage.without_slash(output), name)
        try:
            found = read_manifest(folder)
        except BroetchenError as error:
            raise UsageError(f"{error}; the demo replaces nothing but a demo: choose another --output") from error
        if found is not None and found.mix != config.name:
            raise UsageError(
                f"{folder}: holds a dataset of the mix {found.mix}, and the demo replaces nothing but a demo; "
                "choose another --output"
            )
    return build(config, output, engine=engine, overwrite=True, beam_arguments=beam_arguments, quiet=quiet)


def demo_config() -> MixConfig:
    """The config of the demo, `mix_configs/demo.yaml`."""
    return load_config(str(importlib.resources.files("mix_configs") / "demo.yaml"))
