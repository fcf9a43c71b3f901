"""Reusable Beam transforms, and the types that go into them and come out; nothing here knows of a job.

The names below are imported when they are used: `from transforms import ReadParquet, Tokenize, WriteToArrayRecord`.
"""

from typing import TYPE_CHECKING

from transforms.lazy import lazy_names

if TYPE_CHECKING:
    from transforms.arrayrecord.records import RecordSpec as RecordSpec
    from transforms.arrayrecord.sink import WriteToArrayRecord as WriteToArrayRecord
    from transforms.budget.token_budget import DatasetCut as DatasetCut
    from transforms.budget.token_budget import ShardCount as ShardCount
    from transforms.budget.token_budget import TokenBudget as TokenBudget
    from transforms.building.datasets import BuildDatasets as BuildDatasets
    from transforms.building.datasets import BuildResult as BuildResult
    from transforms.counting.count_tokens import CountSpec as CountSpec
    from transforms.counting.count_tokens import CountTokens as CountTokens
    from transforms.counting.text_count import TextCount as TextCount
    from transforms.dataset.manifest import Manifest as Manifest
    from transforms.dataset.manifest import read_manifest as read_manifest
    from transforms.dataset.reader import ShardReader as ShardReader
    from transforms.dataset.splits import open_dataset as open_dataset
    from transforms.dataset.verify import VerifyShards as VerifyShards
    from transforms.dataset.verify import shard_checks as shard_checks
    from transforms.encoding.tokenize import Tokenize as Tokenize
    from transforms.errors import BroetchenError as BroetchenError
    from transforms.errors import UsageError as UsageError
    from transforms.parquet.read import ReadParquet as ReadParquet
    from transforms.recipe.spec import DatasetSpec as DatasetSpec
    from transforms.tokenizer.file import load_tokenizer as load_tokenizer
    from transforms.tokenizer.spec import TokenizerSpec as TokenizerSpec

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "BroetchenError": "transforms.errors",
        "BuildDatasets": "transforms.building.datasets",
        "BuildResult": "transforms.building.datasets",
        "CountSpec": "transforms.counting.count_tokens",
        "CountTokens": "transforms.counting.count_tokens",
        "DatasetCut": "transforms.budget.token_budget",
        "DatasetSpec": "transforms.recipe.spec",
        "Manifest": "transforms.dataset.manifest",
        "ReadParquet": "transforms.parquet.read",
        "RecordSpec": "transforms.arrayrecord.records",
        "ShardCount": "transforms.budget.token_budget",
        "ShardReader": "transforms.dataset.reader",
        "TextCount": "transforms.counting.text_count",
        "TokenBudget": "transforms.budget.token_budget",
        "Tokenize": "transforms.encoding.tokenize",
        "TokenizerSpec": "transforms.tokenizer.spec",
        "UsageError": "transforms.errors",
        "VerifyShards": "transforms.dataset.verify",
        "WriteToArrayRecord": "transforms.arrayrecord.sink",
        "load_tokenizer": "transforms.tokenizer.file",
        "open_dataset": "transforms.dataset.splits",
        "read_manifest": "transforms.dataset.manifest",
        "shard_checks": "transforms.dataset.verify",
    },
)
