"""The main job: builds the datasets of a mix, each to its exact token budget.

python -m beam_pipelines.jobs.build --config CONFIG --output URI [--dataset NAME …] [Beam options]
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.resources
import posixpath
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Literal

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions

from beam_pipelines.config.mix import MixConfig, load_config
from beam_pipelines.console.progress import follow_build
from beam_pipelines.jobs.specs import (
    chosen_datasets,
    dataset_specs,
    keep_tokenizer,
    load_config_tokenizer,
    tokenizer_spec,
)
from beam_pipelines.runners.dataflow import check_reachable, dataflow_defaults
from beam_pipelines.runners.failures import plain_errors
from beam_pipelines.runners.forked import waiting_workers
from beam_pipelines.runners.local import local_workers, worker_processes
from beam_pipelines.runners.options import pipeline_options, runner_name
from transforms.building.datasets import BuildDatasets
from transforms.dataset.manifest import Manifest, read_manifest
from transforms.encoding.pool import warm_encoder
from transforms.errors import BroetchenError
from transforms.files import storage as files
from transforms.locks.output import hold_output
from transforms.recipe.spec import DatasetSpec
from transforms.tokenizer.spec import Engine

# In one process, start-up left out; measured on the benchmark's corpus.
_TOKENS_PER_S = 14_000_000


@dataclasses.dataclass(frozen=True)
class BuildSummary:
    """What a build did.

    Attributes:
        manifests: of all the datasets asked for, by folder.
        built: the folders of those that this run built; the others were finished before.
        seconds: from start to end.
        template: where the job was staged to be started later (`--template_location`); then nothing was built.
    """

    manifests: Mapping[str, Manifest]
    built: Set[str]
    seconds: float
    template: str | None = None


def build(
    config: MixConfig,
    output: str,
    *,
    datasets: Sequence[str] = (),
    engine: Engine = "auto",
    overwrite: bool = False,
    beam_arguments: Sequence[str] = (),
    quiet: bool = False,
) -> BuildSummary:
    """Builds `datasets`, or all of the config, into `output`, which may be on any filesystem that Beam writes.

    Raises:
        UsageError: the config, the tokenizer or the engine cannot be used; nothing was started.
        BroetchenError: a source is missing, damaged or short, an output cannot be written, or another build is at
            work there.
    """
    started = time.monotonic()
    names = chosen_datasets(config, datasets)
    work_s = sum(config.budgets()[name].total for name in names) / _TOKENS_PER_S
    output = output.rstrip("/") or "/"
    on_dataflow = runner_name(beam_arguments) == "DataflowRunner"
    defaults = dataflow_defaults(beam_arguments, output) if on_dataflow else local_workers(beam_arguments, work_s)
    for name in names if on_dataflow else ():
        check_reachable(name, config.sources(name))
    options = pipeline_options([*defaults, *beam_arguments])
    with contextlib.ExitStack() as stack:
        tokenizer = load_config_tokenizer(config)
        known = tokenizer_spec(config, tokenizer, config.tokenizer_path())
        warm = functools.partial(warm_encoder, known, engine)
        workers = stack.enter_context(waiting_workers(worker_processes(options), warm))
        stack.enter_context(hold_output(output))
        specs = dataset_specs(
            config,
            names,
            tokenizer,
            keep_tokenizer(tokenizer, output),
            output=output,
            engine=engine,
            overwrite=overwrite,
        )
        before = {spec.folder: _manifest_or_none(spec.folder) for spec in specs.values()}
        with (
            follow_build(list(specs.values()), quiet=quiet),
            plain_errors(),
            workers.pipeline(options) as pipeline,
        ):
            _ = (
                pipeline
                | beam.Impulse()
                | "Datasets" >> beam.ParDo(_Specs(specs.values())).with_output_types(DatasetSpec)
                | "Build" >> BuildDatasets()
            )
        template = options.view_as(GoogleCloudOptions).template_location if on_dataflow else None
        if template:
            return BuildSummary({}, set(), time.monotonic() - started, template)
        manifests = {}
        for spec in specs.values():
            manifest = read_manifest(spec.folder)
            if manifest is None:
                raise BroetchenError(
                    f"{spec.folder}: the job ended without a manifest there; see its log, and run it again"
                )
            manifests[spec.folder] = manifest
        for folder in {posixpath.dirname(spec.tokenizer.path) for spec in specs.values()}:
            files.delete_temporary(folder)  # of builds that were killed while they put the tokenizer there
    built = {folder for folder, manifest in manifests.items() if manifest != before[folder]}
    return BuildSummary(manifests, built, time.monotonic() - started)


class _Specs(beam.DoFn):
    """Names what is to be built. `beam.Create` would write it into the job's graph three times."""

    def __init__(self, specs: Iterable[DatasetSpec]) -> None:
        self._specs = list(specs)

    def process(self, _: bytes) -> Iterator[DatasetSpec]:
        yield from self._specs


def _manifest_or_none(folder: str) -> Manifest | None:
    # One that is damaged is the build's to report, or to replace.
    with contextlib.suppress(BroetchenError):
        return read_manifest(folder)
    return None


Container = Literal["parquet", "arrayrecord"]


def text_settings(container: Container) -> list[str]:
    """What makes a text build of any config, as settings KEY=VALUE."""
    written = "parquet" if container == "parquet" else "text"
    return [f"records.format={written}", "records.add_bos=false", "records.add_eos=false"]


def demo_config() -> MixConfig:
    """The config of the demo, `mix_configs/demo.yaml`."""
    return load_config(str(importlib.resources.files("mix_configs") / "demo.yaml"))
