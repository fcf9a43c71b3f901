"""Plans a build without starting it: the reads and writes, from footers and a sample of each source."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from beam_pipelines.config.first_look import check_sources
from beam_pipelines.config.mix import MixConfig
from beam_pipelines.console.progress import display
from beam_pipelines.jobs.specs import chosen_datasets, dataset_specs, keep_tokenizer, load_config_tokenizer
from transforms.arrayrecord.index import index_bytes
from transforms.budget.repeats import expected_passes
from transforms.building.shard import build_shard
from transforms.counting.ledger import Counted, CountLedger
from transforms.counting.text_count import TextCount
from transforms.files import storage
from transforms.files.scratch import temporary_folder
from transforms.megatron.index import id_type, index_size
from transforms.parquet.footer import SourceFile
from transforms.progress.display import Frame, Row, counted
from transforms.recipe.footer_bound import warn_of_footers
from transforms.recipe.plan import DatasetPlan, plan_dataset, read_source
from transforms.recipe.spec import DatasetSpec
from transforms.tokenizer.spec import Engine

_FOOTER_THREADS = 16
_MEASURED_TOKENS = 500_000
# A filter may leave nothing of the first ones.
_MOST_MEASURED_SHARDS = 8
# An ArrayRecord file is filled up to whole blocks of 64 KiB, by half a block on average, and its footer takes another.
_PADDING = 96 << 10


@dataclasses.dataclass(frozen=True)
class DatasetOutlook:
    """The outlook of a build of one dataset; all but the sizes of files are estimates.

    Attributes:
        reference_share: of the text, as a sample has it, that `tokenizers` encodes though gigatoken is the engine.
        uncut_share: of the text, as a sample has it, the part with no place within 64 KiB where a document can be cut.
        kept_share: of the text, as a sample has it, the part that passes the filter; None where a ledger knows a part.
        target_size: bytes that the config wants a shard to have, before the filter.
        need: tokens of all splits.
        available: tokens that the whole source is expected to hold.
        available_error: how far that may be off, in tokens; 0 where all was counted, by a ledger or by the plan.
        passes: how often the train split has to be read for its budget: 1 where the source holds it, and None where it
            holds nothing beside held-out tokens.
        most_passes: the same where the source holds as little as it may.
        max_repeats: how often the config allows that.
        files, source_bytes: of the whole source.
        row_groups, read_bytes, files_read: needed for the budget; bytes are of the stored text column.
        shards, written_bytes: published, indices included.
        records_per_shard: of these, on average; in text formats they are documents.
        index_bytes: of memory that each worker of Grain's takes for the index of all of them; 0 for parquet.
        crowded_row_groups: row groups that make more records than `shards.max_records` by themselves; the budget needs
            them, and each is a shard of its own.
        most_records: that one of them makes, by its footer; 0 where there is none.
        id_bytes: of each id in Megatron's format, where the vocabulary decides on it; 0 in other formats.
        scratch_bytes: local disk that each process takes where the output is remote: a shard at a cut, twice.
        seconds: of one process, at the rate measured on the sample.
    """

    dataset: str
    engine: str
    reference_share: float
    uncut_share: float
    kept_share: float | None
    target_size: int
    need: int
    available: int
    available_error: int
    passes: float | None
    most_passes: float | None
    max_repeats: float
    files: int
    source_bytes: int
    files_read: int
    row_groups: int
    read_bytes: int
    shards: int
    written_bytes: int
    records_per_shard: int
    index_bytes: int
    crowded_row_groups: int
    most_records: int
    id_bytes: int
    scratch_bytes: int
    seconds: float


def plan(
    config: MixConfig,
    *,
    datasets: Sequence[str] = (),
    engine: Engine = "auto",
    ledger: str | None = None,
    on_plan: Callable[[str, DatasetPlan], None] = lambda _name, _plan: None,
    quiet: bool = True,
) -> list[DatasetOutlook]:
    """The outlook of `datasets`, or of all in the config.

    Args:
        ledger: a folder of counts, as `broetchen count --ledger` fills it: row groups that it knows are not estimated.
        on_plan: is given the name of each dataset, and its plan.
        quiet: to show no progress.

    Raises:
        UsageError: the config, the tokenizer or the engine cannot be used.
        BroetchenError: a source is missing or damaged.
    """
    names = chosen_datasets(config, datasets)
    with (
        display("plan", counted("datasets"), quiet=quiet, first="loading the tokenizer") as progress,
        temporary_folder("plan") as scratch,
    ):
        tokenizer = load_config_tokenizer(config)
        check_sources(config, names)
        keep_tokenizer(tokenizer, scratch)
        specs = dataset_specs(config, names, tokenizer, output=scratch, engine=engine, overwrite=False)
        counts = None if ledger is None else CountLedger(storage.without_slash(ledger))
        sources = []
        for done, spec in enumerate(specs):
            progress.show(_step("reading footers", spec.name, done, len(specs)))
            sources.append(read_source(spec))
        # Of all datasets, before the text of any is read.
        for spec, footers in zip(specs, sources, strict=True):
            warn_of_footers(spec, footers)
        outlooks = []
        for done, (spec, footers) in enumerate(zip(specs, sources, strict=True)):
            progress.show(_step("sampling and measuring", spec.name, done, len(specs)))
            outlooks.append(_outlook(spec, footers, counts, on_plan))
        return outlooks


def _step(doing: str, dataset: str, done: int, of: int) -> Frame:
    doing = f"{doing}: {dataset}"
    return Frame(doing, Row("plan", done, of, doing), line=f"{doing}, {done + 1} of {of}")


def _outlook(
    spec: DatasetSpec,
    footers: Sequence[SourceFile],
    ledger: CountLedger | None,
    on_plan: Callable[[str, DatasetPlan], None],
) -> DatasetOutlook:
    known = {} if ledger is None else _known_tokens(spec, footers, ledger)
    plan = plan_dataset(spec, footers, known=known)
    on_plan(spec.name, plan)

    def tokens_in(group: tuple[int, int]) -> float:
        file, index = group
        text_bytes = plan.files[file].row_groups[index].wanted_bytes
        return known.get((plan.files[file].path, index), text_bytes * plan.ratio.tokens_per_byte)

    expected = list(itertools.accumulate(sum(map(tokens_in, shard.row_groups)) for shard in plan.shards))
    whole = sum(tokens < spec.need for tokens in expected)
    # Of the shard in which the budget ends, only the row groups up to there are read.
    groups = [group for shard in plan.shards[:whole] for group in shard.row_groups]
    tokens = expected[whole - 1] if whole else 0.0
    for group in plan.shards[whole].row_groups if whole < len(plan.shards) else ():
        if tokens >= spec.need:
            break
        groups.append(group)
        tokens += tokens_in(group)
    available = round(expected[-1])
    estimated = sum(
        group.wanted_bytes
        for file in plan.files
        for index, group in enumerate(file.row_groups)
        if (file.path, index) not in known
    )
    read = [facts for file, group in groups if not (facts := plan.files[file].row_groups[group]).ruled_out]
    error = plan.ratio.tokens(estimated)[1]
    expected_reads = expected_passes(spec.budgets, available, error)
    shards = min(len(plan.shards), whole + 1) + len(spec.budgets) - 1
    padding = _PADDING if spec.records.extension == "arecord" else 0
    measured = _measure(spec, plan, padding)
    written = min(spec.need, available)
    records = round(written * measured.records_per_token)
    is_megatron = spec.records.format == "megatron"
    beside = index_size(records) + (shards - 1) * index_size(0) if is_megatron else 0
    limits = spec.shard_limits
    crowded = [
        limits.records_in(shard.rows, shard.text_bytes)
        for shard in plan.shards[: whole + 1]
        if limits.too_many(shard.rows, shard.text_bytes)
    ]
    return DatasetOutlook(
        dataset=spec.name,
        engine=plan.engine,
        reference_share=plan.reference_share,
        uncut_share=plan.uncut_share,
        kept_share=None if known else plan.kept_share,
        target_size=spec.target_size,
        need=spec.need,
        available=available,
        available_error=error,
        passes=None if math.isinf(expected_reads.expected) else max(1.0, expected_reads.expected),
        most_passes=None if math.isinf(expected_reads.most) else max(1.0, expected_reads.most),
        max_repeats=spec.max_repeats,
        files=len(plan.files),
        source_bytes=sum(file.size for file in plan.files),
        files_read=len({file for file, group in groups if not plan.files[file].row_groups[group].ruled_out}),
        row_groups=len(read),
        read_bytes=sum(facts.stored_bytes for facts in read),
        shards=shards,
        written_bytes=round(written * measured.bytes_per_token) + shards * padding + beside,
        records_per_shard=round(records / shards),
        index_bytes=index_bytes(records, shards, spec.group_size) if spec.records.extension == "arecord" else 0,
        crowded_row_groups=len(crowded),
        most_records=max(crowded, default=0),
        id_bytes=id_type(spec.records.vocab_size).itemsize if is_megatron else 0,
        scratch_bytes=2 * max(spec.file_bytes(shard.text_bytes) for shard in plan.shards[: whole + 1]),
        seconds=written / measured.tokens_per_second,
    )


def _known_tokens(spec: DatasetSpec, source: Sequence[SourceFile], ledger: CountLedger) -> dict[tuple[str, int], int]:
    """Tokens that a build makes of the row groups, by (path, row group), BOS and EOS included."""
    added = sum(token is not None for token in (spec.records.bos_id, spec.records.eos_id))

    def look_up(source: SourceFile) -> dict[int, TextCount]:
        return ledger.find(Counted.of(source, spec.text_column, spec.tokenizer, spec.rows), source)

    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        found = list(pool.map(look_up, source))
    return {
        (file.path, group): count.tokens + added * count.documents
        for file, counts in zip(source, found, strict=True)
        for group, count in counts.items()
    }


@dataclasses.dataclass(frozen=True)
class _Measured:
    tokens_per_second: float
    bytes_per_token: float
    records_per_token: float


def _measure(spec: DatasetSpec, plan: DatasetPlan, padding: int) -> _Measured:
    """Builds the beginning of the first shard that has some, of which `padding` bytes are none of a token's."""
    started, tokens, written, records = time.perf_counter(), 0, 0, 0
    for shard in itertools.islice((shard for shard in plan.shards if shard.text_bytes), _MOST_MEASURED_SHARDS):
        count = build_shard(spec, plan.task(shard.ordinal, _MEASURED_TOKENS))
        tokens, records = tokens + count.tokens, records + count.records
        written += max(0, count.file.bytes - padding)
        if tokens:
            break
    return _Measured(
        tokens_per_second=max(1, tokens) / (time.perf_counter() - started),
        bytes_per_token=written / max(1, tokens),
        records_per_token=records / max(1, tokens),
    )
