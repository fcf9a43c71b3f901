"""Tokenizes shards: row groups in, one provisional shard and one small count out."""

from __future__ import annotations

import functools
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from apache_beam.metrics import Metrics

from transforms.budget.token_budget import ShardCount
from transforms.building.formats import shard_format
from transforms.building.quarantine import QuarantineWriter, check_row_is_text
from transforms.building.work_folder import WorkFolder
from transforms.encoding.encoders import Encoder
from transforms.encoding.pool import borrow_encoder
from transforms.encoding.tokenize import tokenize_batch
from transforms.files.staged import check_space
from transforms.parquet.texts import read_files
from transforms.recipe.shard_plan import ShardTask
from transforms.recipe.spec import DatasetSpec
from transforms.texts import TextBatch


def build_shard(spec: DatasetSpec, task: ShardTask) -> ShardCount:
    """Tokenizes and writes one shard, or takes it as it is where an earlier run has finished it.

    Raises:
        BroetchenError: a source file is damaged, or the output cannot be written.
    """
    work = WorkFolder(task.work_folder, spec.records.extension)
    done = work.finished(task.ordinal)
    # A build that takes bad rows for an error may find the work of one that did not: it reads them anew, to name one.
    accepted = done and (spec.on_bad_rows != "fail" or not any(done.skipped.values()))
    if done and accepted and (done.complete or (task.stop_after is not None and done.tokens >= task.stop_after)):
        return done
    check_space(work.shard(task.ordinal), spec.file_bytes(task.text_bytes))
    with borrow_encoder(spec.tokenizer, task.engine) as encoder:
        count, lengths = _write_shard(spec, work, task, encoder)
    work.finish(count, lengths)
    return count


def _write_shard(
    spec: DatasetSpec, work: WorkFolder, task: ShardTask, encoder: Encoder
) -> tuple[ShardCount, npt.NDArray[np.uint32]]:
    lengths: list[npt.NDArray[np.int64]] = []
    skipped: Counter[str] = Counter()
    row_groups: set[tuple[str, int]] = set()
    tokens = text_bytes = rows = 0
    output = shard_format(spec)
    with (
        output.writer(work.shard(task.ordinal)) as writer,
        QuarantineWriter(spec, work.quarantine(task.ordinal)) as quarantine,
    ):
        with _InBackground() as background:
            batches = read_files(
                task.row_groups,
                spec.text_column,
                with_columns=output.with_columns,
                with_left_out=spec.on_bad_rows != "skip",
                planned=task.planned,
            )
            for row_group, batch in batches:
                if batch.left_out is not None:
                    if spec.on_bad_rows == "fail":
                        check_row_is_text(*row_group, spec.text_column, batch.left_out)
                    quarantine.write(*row_group, batch.left_out)
                tokenized = tokenize_batch(spec.records, encoder, batch.texts)
                background.run(functools.partial(output.write, writer, batch, tokenized))
                lengths.append(tokenized.lengths)
                skipped.update(batch.skipped)
                row_groups.add(row_group)
                rows += batch.rows
                batch_tokens = int(tokenized.lengths.sum())
                tokens += batch_tokens
                text_bytes += batch.text_bytes
                _count_metrics(spec.name, batch, batch_tokens)
                if task.stop_after is not None and tokens >= task.stop_after:
                    break
        left_out = quarantine.close()
        written = writer.close()
    documents = np.concatenate(lengths).astype(np.uint32) if lengths else np.empty(0, np.uint32)
    count = ShardCount(
        ordinal=task.ordinal,
        tokens=tokens,
        documents=len(documents),
        records=written.records,
        text_bytes=text_bytes,
        file_bytes=written.bytes,
        sha256=written.sha256,
        row_groups=len(row_groups),
        complete=rows == task.rows,
        skipped=dict(skipped),
        quarantine_bytes=left_out.bytes if left_out else 0,
        quarantine_sha256=left_out.sha256 if left_out else "",
    )
    return count, documents


class _InBackground:
    """Runs calls one after another in a thread, at most two behind; a call's exception comes out of a later one."""

    def __enter__(self) -> _InBackground:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._waiting: deque[Future[None]] = deque()
        return self

    def run(self, call: Callable[[], None]) -> None:
        self._waiting.append(self._pool.submit(call))
        while len(self._waiting) > 2:
            self._waiting.popleft().result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for future in self._waiting:
                future.result()


def _count_metrics(dataset: str, batch: TextBatch, tokens: int) -> None:
    namespace = f"broetchen/{dataset}"
    amounts = {"tokens": tokens, "documents": len(batch.texts), "text_bytes": batch.text_bytes}
    amounts["read_bytes"] = batch.stored_bytes
    amounts |= {f"skipped_{reason}": rows for reason, rows in batch.skipped.items()}
    for name, amount in amounts.items():
        Metrics.counter(namespace, name).inc(amount)
