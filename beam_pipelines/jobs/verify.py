"""Verifies finished datasets: every record is read back with Grain's own reader and held against the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import apache_beam as beam
from apache_beam.pvalue import AsList

from beam_pipelines.runners.job import run_job
from beam_pipelines.runners.local import work_seconds
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
    output = output.rstrip("/") or "/"
    manifests = find_manifests(output)
    known = [
        problem
        for folder, manifest in manifests.items()
        for problem in (*dataset_problems(folder, manifest), *quarantine_problems(folder, manifest))
    ]
    checks = [check for folder, manifest in manifests.items() for check in shard_checks(folder, manifest, engine)]
    left_out = [check for folder, manifest in manifests.items() for check in quarantine_checks(folder, manifest)]
    work_s = sum(work_seconds(check.tokens, _TOKENS_PER_S, check.expected_engine()) for check in checks)
    with run_job(beam_arguments, work_s=work_s, output=output) as job, job.pipeline() as pipeline:
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
