"""Tokenizes shards: row groups in, one provisional shard and one small count out."""

from __future__ import annotations

import functools
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from apache_beam.metrics import Metrics

from transforms.budget.token_budget import TAKEN_OVER, ShardCount
from transforms.building.formats import shard_format
from transforms.building.grow import take_over
from transforms.building.quarantine import QuarantineWriter, check_row_is_text
from transforms.building.trace import TraceWriter
from transforms.building.work_folder import ROW, WorkFolder, new_attempt
from transforms.encoding.encoders import Encoder
from transforms.encoding.pool import borrow_encoder, encodable
from transforms.encoding.recheck import EnginesDifferError, check_probe, check_some, engine_version
from transforms.encoding.special_strings import SpecialDocuments
from transforms.encoding.tokenize import tokenize_batch
from transforms.errors import BroetchenError
from transforms.files.staged import check_space
from transforms.parquet.columns import decode_schema
from transforms.parquet.texts import read_files
from transforms.progress.tally import Tally
from transforms.recipe.plan import check_versions
from transforms.recipe.shard_plan import OldShard, ShardTask
from transforms.recipe.spec import DatasetSpec
from transforms.texts import TextBatch, text_hashes


def build_shard(spec: DatasetSpec, task: ShardTask, *, with_rows: bool = False) -> ShardCount:
    """Tokenizes and writes one shard, or takes it as it is where an earlier run, or another dataset, has finished it.

    Args:
        with_rows: whether the fate of each row has to be known, so that one that is taken over does not do.

    Raises:
        BroetchenError: a source file is damaged, the output cannot be written, this process has other versions of
            libraries than the plan's, or the engine gives other ids than the reference; its shards are then not used
            any more.
    """
    check_versions(spec, task.versions)
    work = WorkFolder(task.work_folder, spec.records.extension, task.fingerprint)
    done = work.finished(task.ordinal)
    if done and _serves(spec, task, done) and (done.has_rows or not with_rows):
        return done
    if task.old is not None and not with_rows and _may_take_over(spec, work, task.old):
        return take_over(spec, work, task, task.old)
    attempt = new_attempt()
    check_space(work.shard(task.ordinal, attempt), spec.file_bytes(task.text_bytes))
    with Tally(work.tally(task.ordinal, attempt)) as tally:
        try:
            check_probe(spec.tokenizer, task.engine, task.probe)
            with borrow_encoder(spec.tokenizer, task.engine) as encoder:
                count = _write_shard(spec, work, task, attempt, encoder, tally)
        except EnginesDifferError as error:
            work.distrust(error.engine, str(error))
            raise BroetchenError(str(error)) from error  # by the class that runners hand back in words
        return work.finish(count)


def _serves(spec: DatasetSpec, task: ShardTask, done: ShardCount) -> bool:
    """Whether an earlier run's shard is the one that this run needs."""
    # A build that takes bad rows for an error may find the work of one that did not: it reads them again, to name one.
    if spec.on_bad_rows == "fail" and any(done.skipped.values()):
        return False
    if spec.records.is_text and done.with_special is None:
        return False  # of a version that did not count it
    return done.source == task.source and (
        done.complete or (task.stop_after is not None and done.tokens >= task.stop_after)
    )


def _may_take_over(spec: DatasetSpec, work: WorkFolder, old: OldShard) -> bool:
    bad_rows = spec.on_bad_rows == "fail" and old.skipped
    return not bad_rows and work.distrusted(TAKEN_OVER) is None


def _write_shard(
    spec: DatasetSpec, work: WorkFolder, task: ShardTask, attempt: str, encoder: Encoder, tally: Tally
) -> ShardCount:
    rows: list[npt.NDArray[np.void]] = []
    skipped: Counter[str] = Counter()
    tokens = text_bytes = 0
    output = shard_format(spec)
    special = SpecialDocuments(spec.tokenizer) if spec.records.is_text else None
    current, first_row = None, 0
    with (
        output.writer(work.shard(task.ordinal, attempt)) as writer,
        QuarantineWriter(spec, work.quarantine(task.ordinal, attempt)) as quarantine,
        TraceWriter(spec, work.trace(task.ordinal, attempt), task.columns) as trace,
    ):
        with _InBackground() as background:
            batches = read_files(
                task.row_groups,
                spec.text_column,
                schema=decode_schema(task.columns) if spec.reads_columns else None,
                rows=spec.rows,
                with_left_out=spec.on_bad_rows != "skip",
                planned=task.planned,
            )
            for row_group, read_batch in batches:
                if row_group != current:
                    current, first_row = row_group, 0
                batch = encodable(spec.tokenizer, read_batch, first_row=first_row)
                if batch.left_out is not None:
                    if spec.on_bad_rows == "fail":
                        check_row_is_text(*row_group, spec.text_column, batch.left_out)
                    quarantine.write(*row_group, batch.left_out)
                encoded = encoder.encode(batch.texts)
                numbers = first_row + np.flatnonzero(batch.kinds == 0)
                check_some(spec.tokenizer, task.engine, row_group, numbers, batch.texts, encoded)
                tokenized = tokenize_batch(spec.records, batch.texts, encoded)
                lengths = tokenized.lengths
                background.run(
                    functools.partial(output.write, writer, batch, tokenized),
                    functools.partial(trace.write, row_group, numbers, batch, lengths),
                    *([] if special is None else [functools.partial(special.add, batch.texts)]),
                )
                rows.append(_rows_of(batch, lengths))
                skipped.update(batch.skipped)
                first_row += batch.rows
                batch_tokens = int(lengths.sum())
                tokens += batch_tokens
                tally.add(batch_tokens)
                text_bytes += batch.text_bytes
                _count_metrics(spec.name, batch, batch_tokens)
                if task.stop_after is not None and tokens >= task.stop_after:
                    break
        left_out, traced = quarantine.close(), trace.close()
        written = writer.close()
    read = np.concatenate([np.empty(0, ROW), *rows])
    documents = read["kind"] == 0
    return ShardCount(
        ordinal=task.ordinal,
        tokens=tokens,
        documents=int(np.count_nonzero(documents)),
        without_tokens=int(np.count_nonzero(documents & (read["tokens"] == 0))),
        records=written.records,
        rows=len(read),
        text_bytes=text_bytes,
        complete=len(read) == task.rows,
        skipped=dict(skipped),
        attempt=attempt,
        engine=engine_version(task.engine),
        source=task.source,
        file=written.mark,
        row_file=work.write_rows(task.ordinal, attempt, read),
        quarantine=left_out.mark if left_out else None,
        trace=traced.mark if traced else None,
        with_special=None if special is None else special.count,
    )


def _rows_of(batch: TextBatch, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.void]:
    rows = np.zeros(batch.rows, ROW)
    rows["kind"] = batch.kinds
    documents = batch.kinds == 0
    rows["tokens"][documents] = lengths
    rows["text"][documents] = text_hashes(batch.texts)
    return rows


class _InBackground:
    """Runs calls one after another in a thread, at most two `run` behind; an exception comes out of a later one."""

    def __enter__(self) -> _InBackground:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._waiting: deque[Future[None]] = deque()
        return self

    def run(self, *calls: Callable[[], None]) -> None:
        self._waiting.append(self._pool.submit(_run_all, calls))
        while len(self._waiting) > 2:
            self._waiting.popleft().result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for future in self._waiting:
                future.result()


def _run_all(calls: Sequence[Callable[[], None]]) -> None:
    for call in calls:
        call()


def _count_metrics(dataset: str, batch: TextBatch, tokens: int) -> None:
    namespace = f"broetchen/{dataset}"
    amounts = {"tokens": tokens, "documents": len(batch.texts), "text_bytes": batch.text_bytes}
    amounts["read_bytes"] = batch.stored_bytes
    amounts |= {f"skipped_{reason}": rows for reason, rows in batch.skipped.items()}
    if batch.filtered:
        amounts["filtered"] = batch.filtered
    for name, amount in amounts.items():
        Metrics.counter(namespace, name).inc(amount)
