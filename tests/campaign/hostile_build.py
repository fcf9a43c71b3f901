"""Builds a mix step by step, as the pipeline does but without Beam: quick, and it can be stopped between two steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers
import yaml

from beam_pipelines.config.mix import MixConfig, load_config
from beam_pipelines.jobs.build import build
from beam_pipelines.jobs.specs import chosen_datasets, dataset_specs, keep_tokenizer, load_config_tokenizer
from tests.campaign.hostile_case import Outcome, Wrong
from tests.support.corpora import TOKENIZER
from transforms.arrayrecord.example import decode_ids, decode_text
from transforms.arrayrecord.reader import RecordReader
from transforms.budget.token_budget import ShardCount, cut_dataset
from transforms.building.cut import plan_publication
from transforms.building.datasets import find_finished
from transforms.building.publish import clear_work, finish_dataset, publish_shard
from transforms.building.rows import tell_rows
from transforms.building.shard import build_shard
from transforms.dataset.findings import raise_problems
from transforms.dataset.manifest import Manifest, find_manifests
from transforms.dataset.quarantine import quarantine_checks, quarantine_file_problems
from transforms.dataset.verify import known_problems, shard_checks, shard_problems
from transforms.recipe.plan import plan_dataset, read_source
from transforms.recipe.shard_plan import next_shards

ALL = 10**9
"""A budget that takes all of a small source, with `on_shortfall: keep`."""


def write_config(folder: Path, **changes: Any) -> Path:
    """A config of one dataset, `a`, of all that `folder/a/*.parquet` holds; `changes` are merged into it."""
    content: dict[str, Any] = {
        "name": "hostile",
        "tokenizer": {"path": str(TOKENIZER), "bos_token": "<|bos|>", "eos_token": "<|eos|>"},
        "records": {"max_tokens": 64, "add_eos": True},
        "shards": {"target_size": "4KiB"},
        "on_shortfall": "keep",
        "datasets": {"a": {"tokens": ALL, "source": "a/*.parquet"}},
    }
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(_merged(content, changes)))
    return path


def _merged(content: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(content)
    for key, value in changes.items():
        known = merged.get(key)
        merged[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, Mapping) else value
    return merged


def build_by_steps(config: MixConfig, output: str, between: Callable[[], None] = lambda: None) -> None:
    """The steps of `BuildDatasets`, one after the other; `between` is called when the datasets have been planned."""
    tokenizer = load_config_tokenizer(config)
    keep_tokenizer(tokenizer, output)
    names = chosen_datasets(config, ())
    specs = dataset_specs(config, names, tokenizer, output=output, engine="auto", overwrite=False)
    plans = {}
    for spec in specs:
        plans[spec.name] = plan_dataset(spec, read_source(spec))
    between()
    for spec in specs:
        plan = plans[spec.name]
        if find_finished(spec, plan) is not None:
            continue
        counts: list[ShardCount] = []
        while tasks := next_shards(plan.shards, counts, plan.ratio, spec.need):
            before = len(counts)
            for ordinal, stop_after in tasks:
                counts[ordinal:] = [build_shard(spec, plan.task(ordinal, stop_after))]
            if len(counts) == before:
                raise Wrong(f"the same shard is asked for again and again: {tasks}")
        publish_plan = plan_publication(spec, plan, cut_dataset(counts, spec.budgets))
        published = [shard for task in publish_plan.tasks if (shard := publish_shard(spec, task))]
        rows = [told for task in publish_plan.rows if (told := tell_rows(spec, task))]
        finish_dataset(spec, plan, publish_plan.sums, published, rows)
        clear_work(spec)


def verify_by_steps(output: str) -> None:
    """Does the checks of `verify` without Beam."""
    problems = []
    for folder, manifest in find_manifests(output).items():
        problems += known_problems(folder, manifest)
        for check in shard_checks(folder, manifest, "auto"):
            problems += shard_problems(check)
        for held in quarantine_checks(folder, manifest):
            problems += quarantine_file_problems(held)
    raise_problems(problems)


def oracle_rows(paths: Iterable[Path], column: str) -> list[bytes | None]:
    """The text column of files, row by row, as bytes, as a plain reader of parquet finds it.

    Raises:
        ArrowException, OSError: it cannot be read.
    """
    rows: list[bytes | None] = []
    for path in sorted(paths):
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(columns=[column], use_threads=False)
            if table.num_rows != file.metadata.num_rows:
                raise OSError(f"{path}: {table.num_rows} rows, not {file.metadata.num_rows}")
        for chunk in table[column].chunks:
            plain = chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk
            rows += plain.cast(pa.large_binary(), safe=False).to_pylist()
    return rows


def sort_rows(rows: Iterable[bytes | None]) -> tuple[list[str], dict[str, int]]:
    """The documents, and how many rows are none, by reason; by Python's own UTF-8."""
    documents: list[str] = []
    skipped: dict[str, int] = {}
    for row in rows:
        reason = "null" if row is None else "empty" if not row else None
        if row and not reason:
            try:
                documents.append(row.decode())
                continue
            except UnicodeDecodeError:
                reason = "not_text"
        assert reason
        skipped[reason] = skipped.get(reason, 0) + 1
    return documents, skipped


def build_and_check(
    config_path: Path,
    *,
    column: str = "text",
    by_beam: bool = False,
    between: Callable[[], None] = lambda: None,
    tokenizer: Path = TOKENIZER,
) -> Outcome:
    """Builds a config of `write_config` and compares all of it with the source, as a plain reader finds it.

    Raises:
        BroetchenError: the build fails.
        Wrong: it does not, and should, or what it wrote is not what the source holds.
    """
    config = load_config(str(config_path))
    output = str(config_path.parent / "out")
    if by_beam:
        build(config, output, quiet=True)
        between()
    else:
        build_by_steps(config, output, between)
    return check_output(config_path, column=column, tokenizer=tokenizer)


def check_output(config_path: Path, *, column: str = "text", tokenizer: Path = TOKENIZER) -> Outcome:
    """Compares the output of a config of `write_config` with the source, as a plain reader finds it.

    Raises:
        BroetchenError: `verify` finds something wrong.
        Wrong: the dataset is sound by itself, and not what the source holds.
    """
    output = str(config_path.parent / "out")
    ((folder, manifest),) = find_manifests(output).items()
    verify_by_steps(output)
    try:
        files = Path(config_path.parent / "a").glob("*.parquet")
        rows = oracle_rows((path for path in files if path.is_file() and not path.name.startswith(".")), column)
    except (pa.ArrowException, OSError) as error:
        raise Wrong(f"built, though the source cannot be read: {error}") from error
    documents, skipped = sort_rows(rows)
    found = {reason: count for reason, count in manifest.skipped.items() if count}
    if found != skipped:
        raise Wrong(f"left out {found}, not {skipped}")
    _check_content(Path(folder), manifest, documents, tokenizer)
    return Outcome("skipped" if skipped else "built", str(skipped or ""))


def _check_content(folder: Path, manifest: Manifest, documents: list[str], tokenizer_path: Path) -> None:
    kind = manifest.config["records"]["format"]
    paths = [folder / shard.file for shard in manifest.splits["train"].shards]
    if kind == "parquet":
        column = manifest.config["dataset"]["text_column"]
        texts = [text for path in paths for text in pq.read_table(path)[column].to_pylist()]
        if texts != documents:
            raise Wrong(f"{len(texts)} texts in parquet that are not the {len(documents)} documents")
        return
    records: list[bytes] = []
    for path in paths:
        with RecordReader(str(path)) as reader:
            records += reader
    if kind == "text":
        if [decode_text(record).decode() for record in records] != documents:
            raise Wrong(f"{len(records)} texts that are not the {len(documents)} documents")
        return
    tokenizer = tokenizers.Tokenizer.from_str(tokenizer_path.read_text())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    eos = manifest.tokenizer.eos_id
    expected: list[int] = []
    for encoding in tokenizer.encode_batch(documents, add_special_tokens=False):
        expected += [*encoding.ids, *([eos] if eos is not None else [])]
    ids = [int(token) for record in records for token in decode_ids(record)]
    if ids != expected:
        raise Wrong(f"{len(ids)} ids that are not the {len(expected)} of the documents")
