"""How many processes a local run takes, by how long one would take."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import psutil
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from transforms.parquet.source_files import expand_sources
from transforms.tokenizer.spec import ChosenEngine

# The seconds that a second process costs: for an encoder of its own, and the runner's way between processes.
_WORK_WORTH_PROCESSES_S = 2.0
_MEMORY_PER_WORKER = 1 << 30
_MEMORY_OF_ONE = 512 << 20
# The rate of `tokenizers` in one process, whatever happens to the ids; see docs/benchmarks.md.
_REFERENCE_TOKENS_PER_S = 500_000
# A byte of parquet, compressed as it is and with other columns in it, holds about half a token.
_TOKENS_PER_STORED_BYTE = 0.5


def stored_tokens(patterns: Iterable[str]) -> float:
    """About how many tokens parquet files hold, by their sizes.

    Raises:
        BroetchenError: a pattern matches nothing.
    """
    return _TOKENS_PER_STORED_BYTE * sum(size for _, size in expand_sources(tuple(patterns)))


def work_seconds(tokens: float, tokens_per_s: float, engine: ChosenEngine | None) -> float:
    """About how long one process works.

    Args:
        tokens: to be encoded, or read.
        tokens_per_s: with gigatoken, or without any encoding.
        engine: the encoder; None where nothing is encoded. Other libraries are about as fast as "tokenizers".
    """
    return tokens / tokens_per_s + (tokens / _REFERENCE_TOKENS_PER_S if engine == "tokenizers" else 0)


def local_workers(arguments: Sequence[str], work_s: float) -> list[str]:
    """Beam's options for as many worker processes as there are processors and memory for, where they are worth it.

    Args:
        arguments: Beam's options as given. Any that names a runner or the local runner's workers is the last word.
        work_s: about how many seconds the work takes in one process.
    """
    if any(argument.startswith(("--direct_", "--runner")) for argument in arguments):
        return []
    workers = worthwhile_processes(work_s)
    if workers < 2:
        return []
    return ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]


def worthwhile_processes(work_s: float) -> int:
    """How many worker processes a local run takes by itself: one a processor, as far as memory and work go.

    Args:
        work_s: about how many seconds the work takes in one process.
    """
    if work_s < _WORK_WORTH_PROCESSES_S:
        return 1
    return max(1, min(os.cpu_count() or 1, psutil.virtual_memory().available // _MEMORY_PER_WORKER))


def build_memory(processes: int) -> int:
    """About how many bytes of memory a build takes at its peak on this machine, as docs/benchmarks.md has measured it.

    Text that is passed on with all columns, as `vocab` does, takes a fifth more.

    >>> build_memory(1) >> 20, build_memory(2) >> 20
    (512, 1228)
    """
    # Beside the workers, the process of Beam's runner; ours is both where there is one.
    return _MEMORY_OF_ONE if processes == 1 else round((processes + 1) * 0.4 * (1 << 30))


def local_parallelism(options: PipelineOptions) -> int:
    """How many workers, processes or threads, `options` ask for beside the process of Beam's local runner.

    0 where it does the work itself, or another runner does.
    """
    direct = options.view_as(DirectOptions)
    if options.view_as(StandardOptions).runner != "FnApiRunner" or direct.direct_running_mode == "in_memory":
        return 0
    return direct.direct_num_workers or os.cpu_count() or 1


def worker_processes(options: PipelineOptions) -> int:
    """How many of the workers that `options` ask for are processes."""
    return local_parallelism(options) if options.view_as(DirectOptions).direct_running_mode == "multi_processing" else 0
