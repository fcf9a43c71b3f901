"""Verifies finished datasets: every record is read back with Grain's own reader and held against the manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import logging
import os
import posixpath
import random
import re
from collections.abc import Iterator, Mapping, Sequence

import apache_beam as beam
from apache_beam.pvalue import AsList

from beam_pipelines.config.mix import source_path
from beam_pipelines.console import terminal
from beam_pipelines.console.progress import display, follow_tallies
from beam_pipelines.runners.job import job_folder, run_job
from beam_pipelines.runners.local import work_seconds
from beam_pipelines.runners.remote.run import remote_runner
from transforms.cache import cache_folder
from transforms.card.order import in_config_order
from transforms.dataset.against_source import SourceCheck, VerifyAgainstSource, choose_row_groups
from transforms.dataset.findings import Finding, raise_problems
from transforms.dataset.inventory import leftovers, output_digest, quick_findings
from transforms.dataset.manifest import Manifest, find_manifests
from transforms.dataset.quarantine import QuarantineCheck, VerifyQuarantine, quarantine_checks
from transforms.dataset.tokenizer import why_not_recounted
from transforms.dataset.verify import ShardCheck, VerifyShards, known_findings, shard_checks
from transforms.errors import BroetchenError, UsageError, one_line
from transforms.files import storage
from transforms.progress.display import TOKENS, Display
from transforms.progress.memory import Memory, memory_folder
from transforms.tokenizer.spec import Engine

# In one process, start-up left out; measured on shards of ids.
_TOKENS_PER_S = 23_000_000
_SEEDS = 2**32
_LOGGER = logging.getLogger(__name__)
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class AgainstSource:
    """How datasets are held against their sources.

    Attributes:
        row_groups: how many are read again, chosen by `seed`.
        config: the mix config, at whose folder the source's relative paths start; None for the working directory.
        source_root: where `broetchen download` has put the hub's files; None to read them from the hub.
    """

    row_groups: int
    seed: int
    config: str | None = None
    source_root: str | None = None

    @classmethod
    def chosen(
        cls, row_groups: int, seed: int | None = None, config: str | None = None, source_root: str | None = None
    ) -> AgainstSource:
        """The choice of these arguments; draws a seed where none is given."""
        return cls(row_groups, random.SystemRandom().randrange(_SEEDS) if seed is None else seed, config, source_root)

    def opened(self, shown: str) -> str:
        """The path by which to open a path of a manifest."""
        folder = os.path.dirname(self.config) if self.config else ""
        return source_path(shown, folder, storage.without_slash(self.source_root) if self.source_root else "")


@dataclasses.dataclass(frozen=True, eq=False)
class Verification(Mapping[str, Manifest]):
    """The manifests of the datasets, all sound, by folder, and further findings.

    Attributes:
        digest: stands for all the manifests; see `transforms.dataset.inventory.output_digest`.
        warnings: facts that fit the manifest, and that its user may not want.
        unchecked: facts that could not be checked, and why.
        blind: faults that this kind of check cannot find at all.
        template: where the job was staged to be started later (`--template_location`); then no shard was read.
    """

    manifests: Mapping[str, Manifest]
    digest: str
    warnings: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()
    template: str | None = None

    def __getitem__(self, folder: str) -> Manifest:
        return self.manifests[folder]

    def __iter__(self) -> Iterator[str]:
        return iter(self.manifests)

    def __len__(self) -> int:
        return len(self.manifests)


def verify(
    output: str,
    *,
    engine: Engine = "auto",
    quick: bool = False,
    against: AgainstSource | None = None,
    digest: str | None = None,
    beam_arguments: Sequence[str] = (),
    remember: bool = False,
    fresh: bool = False,
    quiet: bool = True,
) -> Verification:
    """Reads everything under `output` back.

    Args:
        output: a folder of datasets, or one dataset.
        engine: counts the tokens of datasets in text format.
        quick: to look at names, sizes and manifests alone, and read no shard.
        against: also to hold row groups of the sources against the datasets.
        digest: of the manifests, as an earlier run told it.
        beam_arguments: options of Beam.
        remember: not to read again files that a stopped run has found sound, and to remember until its end those that
            this one finds; see `transforms.progress.memory`. Where a service runs the job, nothing is remembered.
        fresh: to forget the findings of an earlier run, and read all again.
        quiet: to show no progress.

    Raises:
        UsageError: `digest` is none, or `quick` and `against` do not go together.
        BroetchenError: no dataset is there, or something is wrong; the message has a line for each thing.
    """
    if digest is not None and not _DIGEST.fullmatch(digest := digest.strip().lower()):
        raise UsageError(
            f"--digest {one_line(digest)[:80]}: not 64 hexadecimal digits, as verify prints them at its end"
        )
    if quick and against:
        raise UsageError("--quick reads nothing, and --against-source reads the source: give one of them")
    output = storage.without_slash(output)
    with display("verify", TOKENS, quiet=quiet or quick, first=f"looking through {output}") as progress:
        return _verified(
            output, engine, quick, against, digest, beam_arguments, remember, fresh, None if quiet else progress
        )


def _verified(
    output: str,
    engine: Engine,
    quick: bool,
    against: AgainstSource | None,
    digest: str | None,
    beam_arguments: Sequence[str],
    remember: bool,
    fresh: bool,
    progress: Display | None,
) -> Verification:
    manifests = in_config_order(output, find_manifests(output))
    found_digest = output_digest(manifests)
    findings = [Finding("warning", text) for text in leftovers(output, manifests)]
    if digest not in (None, found_digest):
        findings.append(Finding("problem", f"{output}: the digest of its manifests is {found_digest}, not {digest}"))
    template, remembered = None, 0
    if quick:
        findings += [finding for folder, manifest in manifests.items() for finding in quick_findings(folder, manifest)]
        raise_problems(finding.text for finding in findings if finding.kind == "problem")
    else:
        memory = None
        if remember and remote_runner(beam_arguments) is None:
            memory = _memory(output, found_digest, fresh=fresh)
        findings, template, remembered = _run(
            output, manifests, findings, engine, against, beam_arguments, memory, progress
        )
    warnings, unchecked = (
        tuple(sorted({finding.text for finding in findings if finding.kind == kind}))
        for kind in ("warning", "unchecked")
    )
    return Verification(
        manifests,
        found_digest,
        warnings,
        unchecked,
        blind=tuple(_blind(quick=quick, against=against, digest=digest, remembered=remembered)),
        template=template,
    )


def _memory(output: str, digest: str, *, fresh: bool) -> Memory | None:
    """The memory of an earlier run with these very manifests, if it was stopped; None where there is no cache."""
    try:
        cache = cache_folder()
    except UsageError as error:
        _LOGGER.warning("verify: a run that is stopped begins again: %s", error)
        return None
    place = os.path.abspath(output) if storage.is_local(output) else output
    memory = Memory(memory_folder(cache, "verify", [place, digest, _versions()]))
    if fresh:
        memory.forget()
    memory.begin()
    terminal.will_go_on()
    return memory


def _versions() -> str:
    """The versions of all that reads a shard: findings of another version are not taken over."""
    libraries = ("broetchen", "array-record", "grain", "gigatoken", "numpy", "pyarrow", "tokenizers")
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in libraries)


def _blind(*, quick: bool, against: AgainstSource | None, digest: str | None, remembered: int) -> Iterator[str]:
    if quick:
        yield "what is in the files (leave out --quick)"
    if remembered:
        yield (
            f"what a disk has changed by itself in {remembered:,} shards since an earlier run read them "
            "(--fresh reads all)"
        )
    if digest is None:
        yield "shards and manifest replaced together (keep the digest elsewhere, and give it by --digest)"
    if against is None:
        yield "texts and ids that are not the source's (--against-source N)"
    else:
        yield f"the same in other row groups than the {against.row_groups:,} that were chosen"


def _run(
    output: str,
    manifests: Mapping[str, Manifest],
    findings: Sequence[Finding],
    engine: Engine,
    against: AgainstSource | None,
    beam_arguments: Sequence[str],
    memory: Memory | None,
    progress: Display | None,
) -> tuple[list[Finding], str | None, int]:
    """All findings, where the job was staged, if it was, and how many shards an earlier run has found sound.

    Raises:
        BroetchenError: there are problems among them.
    """
    known = [*findings, *(finding for folder in manifests for finding in known_findings(folder, manifests[folder]))]
    checks = [check for folder, manifest in manifests.items() for check in _shard_checks(folder, manifest, engine)]
    left_out = [check for folder, manifest in manifests.items() for check in quarantine_checks(folder, manifest)]
    sources: list[SourceCheck] = []
    if against:
        sources, unchecked = choose_row_groups(manifests, against.row_groups, against.seed, against.opened)
        known += unchecked
    work_s = sum(work_seconds(check.tokens, _TOKENS_PER_S, check.expected_engine()) for check in checks)
    work_s += sum(work_seconds(check.tokens, _TOKENS_PER_S, "tokenizers") for check in sources)
    there = memory.paths() if memory else set()
    remembered = sum(check.path in there for check in checks)
    total = sum(check.tokens for check in checks if check.path not in there)
    if remembered:
        _LOGGER.info(
            "verify: a run that was stopped has found %s of %s shards sound; of these, only those are read again that "
            "have changed since (--fresh reads all)",
            f"{remembered:,}",
            f"{len(checks):,}",
        )
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(job_folder(beam_arguments, "verify", output))
        result = posixpath.join(scratch, "findings.json")
        if memory:
            # Where the job comes to its end, with any findings, the next run reads everything.
            stack.callback(lambda: memory.forget() if storage.exists(result) else None)
        job = stack.enter_context(run_job(beam_arguments, work_s=work_s, output=output))
        if progress:
            stack.enter_context(follow_tallies(progress, scratch, "reading", TOKENS, total=total))
        with job.pipeline() as pipeline:
            in_shards = (
                pipeline
                | "Shards" >> beam.Create(checks, reshuffle=False).with_output_types(ShardCheck)
                | "VerifyShards" >> VerifyShards(None if progress is None else scratch, memory)
            )
            in_quarantine = (
                pipeline
                | "LeftOut" >> beam.Create(left_out, reshuffle=False).with_output_types(QuarantineCheck)
                | "VerifyQuarantine" >> VerifyQuarantine()
            )
            in_sources = (
                pipeline
                | "RowGroups" >> beam.Create(sources, reshuffle=False).with_output_types(SourceCheck)
                | "VerifyAgainstSource" >> VerifyAgainstSource()
            )
            in_all = (in_shards, in_quarantine, in_sources) | "Found" >> beam.Flatten()
            _ = (
                pipeline
                | "Known" >> beam.Create([[dataclasses.astuple(finding) for finding in known]])
                | "Tell" >> beam.Map(_tell, AsList(in_all), result)
            )
        if job.template:
            return known, job.template, remembered
        return [*known, *_told(result)], None, remembered


def _shard_checks(folder: str, manifest: Manifest, engine: Engine) -> list[ShardCheck]:
    try:
        return list(shard_checks(folder, manifest, engine, recount=why_not_recounted(folder, manifest) is None))
    except BroetchenError:
        return []  # Its tokenizer may not be read, which `known_findings` has told.


def _tell(known: Sequence[tuple[str, str]], found: Sequence[Finding], result: str) -> None:
    """Writes the findings to where the command reads them, and fails where there are problems.

    A job that runs elsewhere, and that nobody waits for, fails as well.
    """
    with contextlib.suppress(BroetchenError):  # The worker may be on another machine; see `_told`.
        storage.write_bytes(result, json.dumps([(one.kind, one.text) for one in found]).encode())
    problems = [*known, *((one.kind, one.text) for one in found)]
    raise_problems(text for kind, text in problems if kind == "problem")


def _told(result: str) -> list[Finding]:
    if not storage.exists(result):
        where = "the workers and this command share no folder; give them one by --temp_location"
        return [Finding("unchecked", f"whether texts of eval stand in train is not known here: {where}")]
    return [Finding(kind, text) for kind, text in json.loads(storage.read_bytes(result))]
