"""Verifies finished datasets: every record is read back with Grain's own reader and held against the manifest.

python -m beam_pipelines.jobs.verify --output URI [Beam options]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import apache_beam as beam
from apache_beam.pvalue import AsList

from beam_pipelines.runners.dataflow import with_dataflow_defaults
from beam_pipelines.runners.failures import plain_errors
from beam_pipelines.runners.forked import waiting_workers
from beam_pipelines.runners.local import local_workers, worker_processes
from beam_pipelines.runners.options import pipeline_options
from transforms.building.quarantine import QuarantineCheck, VerifyQuarantine, quarantine_checks, quarantine_problems
from transforms.dataset.manifest import Manifest, find_manifests
from transforms.dataset.verify import ShardCheck, VerifyShards, dataset_problems, raise_problems, shard_checks
from transforms.tokenizer.spec import Engine

# In one process, start-up left out; measured on shards of ids.
_TOKENS_PER_S = 23_000_000


def verify(output: str, *, engine: Engine = "auto", beam_arguments: Sequence[str] = ()) -> Mapping[str, Manifest]:
    """Reads everything under `output` back.

    Args:
        output: a folder of datasets, or one dataset.
        engine: counts the tokens of datasets in text format.

    Returns:
        the manifests of the datasets, all sound, by folder.

    Raises:
        BroetchenError: no dataset is there, or something is wrong; the message has a line for each thing.
    """
    manifests = find_manifests(output.rstrip("/"))
    known = [
        problem
        for folder, manifest in manifests.items()
        for problem in (*dataset_problems(folder, manifest), *quarantine_problems(folder, manifest))
    ]
    checks = [check for folder, manifest in manifests.items() for check in shard_checks(folder, manifest, engine)]
    left_out = [check for folder, manifest in manifests.items() for check in quarantine_checks(folder, manifest)]
    beam_arguments = with_dataflow_defaults(beam_arguments, output.rstrip("/"))
    work_s = sum(check.tokens for check in checks) / _TOKENS_PER_S
    options = pipeline_options([*beam_arguments, *local_workers(beam_arguments, work_s)])
    workers = waiting_workers(worker_processes(options))
    with workers, plain_errors(), workers.pipeline(options) as pipeline:
        in_shards = (
            pipeline
            | "Shards" >> beam.Create(checks, reshuffle=False).with_output_types(ShardCheck)
            | "VerifyShards" >> VerifyShards()
        )
        in_quarantine = (
            pipeline
            | "LeftOut" >> beam.Create(left_out, reshuffle=False).with_output_types(QuarantineCheck)
            | "VerifyQuarantine" >> VerifyQuarantine()
        )
        found = (in_shards, in_quarantine) | "Found" >> beam.Flatten()
        _ = (
            pipeline
            | "Once" >> beam.Create([known])
            | "Fail" >> beam.Map(lambda before, problems: raise_problems([*before, *problems]), AsList(found))
        )
    return manifests
