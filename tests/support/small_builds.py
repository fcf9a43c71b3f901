"""Datasets of a few documents in provisional shards, made without a pipeline, and how text is split, by the book."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.corpora import write_parquet
from tests.support.small_tokenizers import GPT2, byte_level
from transforms.arrayrecord.records import MOST_TOKENS, Format, RecordSpec, holds_ids
from transforms.budget.token_budget import ShardCount, cut_dataset
from transforms.building.cut import PublishPlan, plan_publication
from transforms.building.shard import build_shard
from transforms.dataset.manifest import Shortfall
from transforms.parquet.footer import read_footer
from transforms.recipe.plan import DatasetPlan, plan_dataset
from transforms.recipe.spec import DatasetSpec
from transforms.tokenizer.spec import TokenizerSpec

EOS = 0
_AB = 256


def small_ids(text: str) -> list[int]:
    """The ids of a document by the tokenizer of `small_build`: its bytes, "ab" as one, after a space if it has none.

    So the rest of a document that is cut begins with a space that the document has not there.
    """
    spaced = text if text.startswith(" ") else f" {text}"
    ids: list[int] = []
    for byte in spaced.encode():
        if byte == ord("b") and ids[-1] == ord("a"):
            ids[-1] = _AB
        else:
            ids.append(byte)
    return ids


def small_count(text: str) -> int:
    """How many they are."""
    return len(small_ids(text))


@dataclasses.dataclass(frozen=True)
class SmallBuild:
    """A dataset whose shards are all tokenized, and none of it published.

    Attributes:
        documents: of each shard.
    """

    spec: DatasetSpec
    plan: DatasetPlan
    counts: tuple[ShardCount, ...]
    documents: Sequence[Sequence[str]]

    @property
    def tokens(self) -> int:
        return sum(count.tokens for count in self.counts)

    def with_budgets(self, budgets: Mapping[str, int], on_shortfall: Shortfall = "fail") -> SmallBuild:
        """The same shards for other splits."""
        spec = dataclasses.replace(self.spec, budgets=budgets, on_shortfall=on_shortfall)
        return dataclasses.replace(self, spec=spec)

    def publish_plan(self) -> PublishPlan:
        """As the pipeline's last steps get it."""
        return plan_publication(self.spec, self.plan, cut_dataset(self.counts, self.spec.budgets))


def small_build(
    folder: Path,
    record_format: Format,
    shards: Sequence[Sequence[str | None]],
    *,
    normalizer: dict[str, Any] | None = None,
    trace: bool = False,
) -> SmallBuild:
    """Builds a shard of each of these lists of rows: of ids with EOS, in `tokens` four to a record, or of text.

    Args:
        trace: whether traces are written, with the column `id`, which numbers the rows of each row group.
    """
    tokenizer = byte_level([(b"a", b"b")], pre_tokenizer={**GPT2, "add_prefix_space": True}, normalizer=normalizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    digest = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    spec = DatasetSpec(
        name="small",
        mix="test",
        sources=(str(folder / "source.parquet"),),
        source_roots=(),
        text_column="text",
        order="sequential",
        seed=0,
        budgets={"train": 1},
        on_shortfall="fail",
        records=small_records(record_format),
        target_size=1,
        group_size=1,
        compression="zstd",
        tokenizer=TokenizerSpec(str(folder / "tokenizer.json"), digest, None, None, special_tokens="text"),
        engine="tokenizers",
        output=str(folder / "out"),
        config={},
        trace=trace,
        trace_columns=("id",) if trace else (),
    )
    source = folder / "source.parquet"
    write_parquet(source, shards)
    footer = read_footer(str(source), source.stat().st_size, "text", with_columns=spec.reads_columns)
    plan = plan_dataset(spec, [footer])
    counts = tuple(build_shard(spec, plan.task(ordinal, None)) for ordinal in range(len(plan.shards)))
    assert len(counts) == len(shards)
    return SmallBuild(spec, plan, counts, [[row for row in rows if row] for rows in shards])


def small_records(record_format: Format) -> RecordSpec:
    """The kind of records that `small_build` writes."""
    if not holds_ids(record_format):
        return RecordSpec(record_format, max_tokens=4, bos_id=None, eos_id=None)
    most = MOST_TOKENS if record_format == "megatron" else 4
    return RecordSpec(record_format, max_tokens=most, bos_id=None, eos_id=EOS, vocab_size=_AB + 1)


def follow_split(
    written: Sequence[str], documents: Sequence[str], budget: int, count: Callable[[str], int]
) -> tuple[list[str], int]:
    """Checks that a split holds what it should, document by document, as one would cut them by hand.

    A document that fits is taken. Of one that does not, a part is taken with exactly the tokens that are missing, and
    the rest of it is the next split's first document; where it is not cut, it is the next split's, before all others.

    Args:
        written: the documents of the split.
        documents: all that was there for it.
        count: the tokens of a text.

    Returns:
        the documents left for the next split, and how many of them were put back.
    """
    waiting, put_back, missing = list(documents), list[str](), budget
    for text in written:
        while count(waiting[0]) > missing and not (waiting[0].startswith(text) and count(text) == missing):
            put_back.append(waiting.pop(0))
        document = waiting.pop(0)
        if count(document) <= missing:
            assert text == document
        else:
            assert 0 < len(text) < len(document)
            waiting.insert(0, document[len(text) :])
        missing -= count(text)
    if missing:
        assert all(count(document) > missing for document in waiting)
        put_back, waiting = put_back + waiting, []
    return put_back + waiting, len(put_back)
