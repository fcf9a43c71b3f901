"""Brötchen from Python: the jobs as functions, and built datasets as sequences of records; see docs/python.md.

    import broetchen

    mix = broetchen.load_mix("my-mix.yaml", total_tokens="1M")
    broetchen.build(mix, "out")
    broetchen.open_dataset("out/german")["train"][0].text

Nothing is printed, whatever is wrong is raised as a `BroetchenError`, and each name is imported when it is used.
"""

from typing import TYPE_CHECKING

from transforms.lazy import lazy_names

if TYPE_CHECKING:
    from beam_pipelines.config.mix import MixConfig as MixConfig
    from beam_pipelines.jobs.build import BuildSummary as BuildSummary
    from beam_pipelines.jobs.plan import DatasetOutlook as DatasetOutlook
    from broetchen.jobs import build as build
    from broetchen.jobs import count as count
    from broetchen.jobs import load_mix as load_mix
    from broetchen.jobs import plan as plan
    from broetchen.jobs import verify as verify
    from transforms.counting.text_count import TextCount as TextCount
    from transforms.dataset.manifest import Manifest as Manifest
    from transforms.dataset.manifest import read_manifest as read_manifest
    from transforms.dataset.splits import BuiltDataset as BuiltDataset
    from transforms.dataset.splits import Record as Record
    from transforms.dataset.splits import SplitRecords as SplitRecords
    from transforms.dataset.splits import open_dataset as open_dataset
    from transforms.errors import BroetchenError as BroetchenError
    from transforms.errors import UsageError as UsageError

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "BroetchenError": "transforms.errors",
        "BuildSummary": "beam_pipelines.jobs.build",
        "BuiltDataset": "transforms.dataset.splits",
        "DatasetOutlook": "beam_pipelines.jobs.plan",
        "Manifest": "transforms.dataset.manifest",
        "MixConfig": "beam_pipelines.config.mix",
        "Record": "transforms.dataset.splits",
        "SplitRecords": "transforms.dataset.splits",
        "TextCount": "transforms.counting.text_count",
        "UsageError": "transforms.errors",
        "build": "broetchen.jobs",
        "count": "broetchen.jobs",
        "load_mix": "broetchen.jobs",
        "open_dataset": "transforms.dataset.splits",
        "plan": "broetchen.jobs",
        "read_manifest": "transforms.dataset.manifest",
        "verify": "broetchen.jobs",
    },
)
