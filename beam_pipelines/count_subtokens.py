"""Counts the subtokens of a config's sources, or shows those of datasets that are built.

python -m beam_pipelines.count_subtokens --config CONFIG_OR_URI [Beam options]
"""

from __future__ import annotations

import json
import posixpath
import tempfile
from collections.abc import Mapping, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions
from apache_beam.pvalue import AsDict

from beam_pipelines.dataset_specs import chosen_datasets, dataset_specs, keep_tokenizer, load_config_tokenizer
from beam_pipelines.job_errors import plain_errors
from beam_pipelines.mix_config import MixConfig
from beam_pipelines.runner_options import pipeline_options
from transforms import files
from transforms.count_tokens import CountTokens, TextCount
from transforms.dataset_spec import Engine
from transforms.json_coder import to_json
from transforms.manifest import find_manifests


def count_sources(
    config: MixConfig,
    *,
    datasets: Sequence[str] = (),
    engine: Engine = "auto",
    beam_arguments: Sequence[str] = (),
) -> dict[str, TextCount]:
    """Counts all documents of the sources of `datasets`, or of all in the config.

    Raises:
        UsageError: the config, the tokenizer or the engine cannot be used.
        BroetchenError: a source is missing or damaged.
    """
    names = chosen_datasets(config, datasets)
    tokenizer = load_config_tokenizer(config)
    options = pipeline_options(beam_arguments)
    with tempfile.TemporaryDirectory(prefix="broetchen-count-") as local:
        # Workers elsewhere cannot read a folder of this machine.
        scratch = options.view_as(GoogleCloudOptions).temp_location or local
        specs = dataset_specs(
            config,
            names,
            tokenizer,
            keep_tokenizer(tokenizer, scratch),
            output=scratch,
            engine=engine,
            overwrite=False,
        )
        result = posixpath.join(scratch, "counts.json")
        with plain_errors(), beam.Pipeline(options=options) as pipeline:
            counts = pipeline | "Datasets" >> beam.Create(names) | "CountTokens" >> CountTokens(specs)
            _ = pipeline | "Once" >> beam.Create([result]) | "Write" >> beam.Map(_write_counts, AsDict(counts))
        found = json.loads(files.read_bytes(result))
    return {name: TextCount(**found[name]) for name in names}


def _write_counts(path: str, counts: Mapping[str, TextCount]) -> None:
    files.write_bytes(path, json.dumps({name: json.loads(to_json(count)) for name, count in counts.items()}).encode())


def count_built(output: str) -> dict[str, TextCount]:
    """The counts of built datasets' splits, from their manifests (`broetchen verify` proves those).

    Raises:
        BroetchenError: no finished dataset is there.
    """
    return {
        f"{manifest.dataset}/{name}": TextCount(split.documents, split.tokens)
        for manifest in find_manifests(output.rstrip("/")).values()
        for name, split in manifest.splits.items()
    }


if __name__ == "__main__":
    from beam_pipelines.cli import module_main

    module_main("count", "--config")
