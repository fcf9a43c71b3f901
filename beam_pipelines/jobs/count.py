"""Counts subtokens: of a config's sources, of parquet files, or of built datasets. It only counts: no ids are kept."""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
from collections.abc import Callable, Mapping, Sequence

import apache_beam as beam
from apache_beam.pvalue import AsDict

from beam_pipelines.config.first_look import check_sources
from beam_pipelines.config.mix import MixConfig
from beam_pipelines.console.progress import display, follow_tallies
from beam_pipelines.jobs.specs import chosen_datasets, keep_tokenizer, read_config_tokenizer, row_filter
from beam_pipelines.runners.job import job_folder, run_job
from beam_pipelines.runners.local import stored_tokens, work_seconds
from transforms.card.order import in_config_order
from transforms.config.file import is_config
from transforms.counting.count_tokens import BuiltShard, CountBuiltShards, CountSpec, CountTokens, built_shards
from transforms.counting.ledger import CountLedger
from transforms.counting.text_count import TextCount
from transforms.dataset.manifest import NAME, find_manifests
from transforms.encoding.pool import expected_engine, know_tokenizer, warm_encoder
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.parquet.row_filter import RowFilter
from transforms.patterns import is_wild
from transforms.progress.display import BYTES, Display
from transforms.progress.tally import worker_tally
from transforms.tokenizer.file import TokenizerFile, load_tokenizer
from transforms.tokenizer.spec import Engine, SpecialTokens, TokenizerSpec

# With gigatoken in one process, start-up left out; measured on the benchmark's corpus.
_TOKENS_PER_S = 40_000_000


class Counting:
    """The texts to count, under names of their own.

    Args:
        engine: the encoder; counts do not depend on it.
        scratch: a folder that all workers reach.
    """

    def __init__(self, engine: Engine, scratch: str) -> None:
        self._engine, self._scratch = engine, scratch
        self.specs: dict[str, CountSpec] = {}
        self.shards: list[BuiltShard] = []
        self.names: list[str] = []

    def add_config(self, config: MixConfig, datasets: Sequence[str] = ()) -> None:
        """All of the sources of `datasets`, or of all in the config.

        Raises:
            UsageError: the config has no such dataset, or its tokenizer cannot be used.
        """
        # Whether it has the EOS token that a build would add is no matter here.
        tokenizer = self._keep(read_config_tokenizer(config), config.tokenizer.special_tokens)
        names = chosen_datasets(config, datasets)
        check_sources(config, names)
        for name in names:
            column, rows = config.datasets[name].text_column, row_filter(config, name)
            self._add_source(name, config.sources(name), column, tokenizer, rows)

    def add_parquet(self, pattern: str, tokenizer: str, text_column: str = "text") -> None:
        """The files that a glob pattern names.

        Raises:
            UsageError: the tokenizer cannot be loaded, or the pattern is on a filesystem that Beam does not know.
        """
        storage.check_scheme(pattern)
        self._add_source(pattern, (pattern,), text_column, self._keep(load_tokenizer(tokenizer), "text"))

    def add_built(self, output: str, datasets: Sequence[str] = ()) -> None:
        """The splits of built datasets: of `output`, or of the one dataset that it is.

        Raises:
            UsageError: none of them is in `datasets`, where those are given.
            BroetchenError: no finished dataset is there.
        """
        found = in_config_order(output, find_manifests(output))
        unknown = [name for name in datasets if name not in {manifest.dataset for manifest in found.values()}]
        if unknown:
            known = ", ".join(manifest.dataset for manifest in found.values())
            raise UsageError(f"--dataset {unknown[0]}: {output} has no such dataset; it has {known}")
        for folder, manifest in found.items():
            if not datasets or manifest.dataset in datasets:
                names = {name: self._unused(name) for name in (f"{manifest.dataset}/{s}" for s in manifest.splits)}
                self.names += names.values()
                for shard in built_shards(folder, manifest, self._engine):
                    self.shards.append(BuiltShard(names[shard.name], shard.documents, shard.shard))

    def _add_source(
        self,
        name: str,
        sources: tuple[str, ...],
        text_column: str,
        tokenizer: TokenizerSpec,
        rows: RowFilter | None = None,
    ) -> None:
        name = self._unused(name)
        self.names.append(name)
        self.specs[name] = CountSpec(name, sources, text_column, tokenizer, self._engine, rows)

    def _unused(self, name: str) -> str:
        """`name`, with a number where something of that name is counted already."""
        unused, number = name, 1
        while unused in self.names:
            number += 1
            unused = f"{name} ({number})"
        return unused

    def _keep(self, tokenizer: TokenizerFile, special_tokens: SpecialTokens) -> TokenizerSpec:
        spec = TokenizerSpec(
            path=keep_tokenizer(tokenizer, self._scratch),
            sha256=tokenizer.sha256,
            bos_token=None,
            eos_token=None,
            special_tokens=special_tokens,
        )
        know_tokenizer(spec, tokenizer)
        return spec

    def warm_encoders(self) -> None:
        """Makes the encoders that this process is likely to need."""
        for tokenizer in {spec.tokenizer for spec in self.specs.values()}:
            warm_encoder(tokenizer, self._engine)

    def work_s(self) -> float:
        """About how long one process counts, from the sizes of files.

        Raises:
            BroetchenError: a pattern matches nothing.
        """
        seconds = 0.0
        for spec in self.specs.values():
            engine = expected_engine(spec.tokenizer, self._engine)
            seconds += work_seconds(stored_tokens(spec.sources), _TOKENS_PER_S, engine)
        for built in self.shards:
            seconds += work_seconds(built.shard.tokens, _TOKENS_PER_S, built.shard.expected_engine())
        return seconds


def count(
    what: Sequence[str | MixConfig],
    load_config: Callable[[str], MixConfig],
    *,
    datasets: Sequence[str] = (),
    tokenizer: str | None = None,
    text_column: str = "text",
    engine: Engine = "auto",
    ledger: str | None = None,
    beam_arguments: Sequence[str] = (),
    quiet: bool = True,
) -> dict[str, TextCount]:
    """Counts all of `what`, in one pipeline.

    Args:
        what: mix configs or their paths (`.yaml`), parquet files or glob patterns of them, folders of built datasets.
        load_config: reads a mix config.
        datasets: of configs and built outputs, only these.
        tokenizer, text_column: for parquet files; the others name theirs.
        ledger: a folder of counts for the sources, which is looked up and filled; see `transforms.counting.ledger`.
        beam_arguments: options of Beam.
        quiet: to show no progress.

    Returns:
        The counts by name, in the order of `what`: a source by its dataset, a split as `<dataset>/<split>`, parquet
        files by their pattern. A name that comes again gets a number.

    Raises:
        UsageError: a config, a tokenizer, the engine or a dataset's name cannot be used.
        BroetchenError: a source is missing, damaged or without text, or a built shard is damaged.
    """
    patterns = [given for given in what if isinstance(given, str) and _is_parquet(given)]
    if patterns and tokenizer is None:
        raise UsageError(f"{patterns[0]}: name the tokenizer to count with by --tokenizer PATH")
    if tokenizer is not None and not patterns:
        raise UsageError(
            "--tokenizer is for parquet files, which are named by a pattern such as FOLDER/*.parquet: a config and a "
            "built dataset name their own (for a config: --set tokenizer.path=PATH)"
        )
    if datasets and len(patterns) == len(what):
        raise UsageError(f"--dataset {datasets[0]}: parquet files have no datasets; leave it out")
    with (
        display("count", BYTES, quiet=quiet, first="looking through what is to be counted") as progress,
        job_folder(beam_arguments, "count") as scratch,
    ):
        counting = Counting(engine, scratch)
        for given in what:
            if isinstance(given, MixConfig) or is_config(given):
                counting.add_config(given if isinstance(given, MixConfig) else load_config(given), datasets)
            elif tokenizer is not None and _is_parquet(given):
                counting.add_parquet(given, tokenizer, text_column)
            else:
                counting.add_built(given, datasets)
        return _run(counting, scratch, ledger, beam_arguments, None if quiet else progress)


def _is_parquet(what: str) -> bool:
    if what.endswith(".parquet"):
        return True
    # A folder of built datasets may have brackets in its name.
    return is_wild(what) and not (is_config(what) or os.path.isdir(what) or list_files(what, f"*/{NAME}"))


def _run(
    counting: Counting, scratch: str, ledger: str | None, beam_arguments: Sequence[str], progress: Display | None
) -> dict[str, TextCount]:
    result = posixpath.join(scratch, "counts.json")
    known = None if ledger is None else CountLedger(storage.without_slash(ledger))
    tallies = None if progress is None else scratch
    ready = run_job(beam_arguments, work_s=counting.work_s(), prepare=counting.warm_encoders)
    # The workers find out how much text there is.
    followed = contextlib.nullcontext() if progress is None else follow_tallies(progress, scratch, "counting", BYTES)
    built_bytes = sum(built.shard.size for built in counting.shards)
    with ready as job, followed, job.pipeline() as pipeline:
        worker_tally(tallies).expect(built_bytes)
        of_sources = (
            pipeline
            | "Sources" >> beam.Create(list(counting.specs), reshuffle=False).with_output_types(str)
            | "CountTokens" >> CountTokens(counting.specs, known, tallies)
        )
        of_shards = (
            pipeline
            | "Shards" >> beam.Create(counting.shards, reshuffle=False).with_output_types(BuiltShard)
            | "CountBuiltShards" >> CountBuiltShards(tallies)
        )
        counts = (of_sources, of_shards) | beam.Flatten()
        _ = pipeline | "Once" >> beam.Create([result]) | "Write" >> beam.Map(_write_counts, AsDict(counts))
    by_name = json.loads(storage.read_bytes(result))
    counted = {name: TextCount.from_plain(by_name[name]) if name in by_name else TextCount() for name in counting.names}
    for name, spec in counting.specs.items():
        if not counted[name].documents and spec.rows is not None:
            raise BroetchenError(f"{name}: its `filters` and `exclude` leave no document; check them")
        if not counted[name].documents:
            raise BroetchenError(
                f"{name}: column {spec.text_column!r} holds no text in any of its files ({', '.join(spec.sources)}); "
                "check source and text_column"
            )
    return counted


def _write_counts(path: str, counts: Mapping[str, TextCount]) -> None:
    storage.write_bytes(path, json.dumps({name: count.to_plain() for name, count in counts.items()}).encode())
