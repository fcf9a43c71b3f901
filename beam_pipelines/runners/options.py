"""Beam's pipeline options: all of them pass through; these are the defaults where none is given."""

from __future__ import annotations

import argparse
import difflib
import functools
from collections.abc import Iterable, Mapping, Sequence

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from transforms.errors import UsageError

_LOCAL_RUNNERS = (None, "DirectRunner", "SwitchingDirectRunner", "FnApiRunner")
# These ask their job server for further options, which nobody knows here.
RUNNERS_WITH_MORE_OPTIONS = ("PortableRunner", "FlinkRunner", "SparkRunner", "PrismRunner", "KafkaStreamsRunner")


def pipeline_options(arguments: Sequence[str]) -> PipelineOptions:
    """Options from the command line's arguments that are not ours.

    Local runs take Beam's in-process runner by its own name, FnApiRunner: the meaning of "DirectRunner" has come to
    depend on the pipeline and on whether a further runner can be downloaded, and the output of that one is not proven
    here.

    Raises:
        UsageError: Beam has no such option or runner, or the option cannot have this value.
    """
    runner = runner_name(arguments)
    _check(arguments, runner)
    options = PipelineOptions(list(arguments))
    direct = options.view_as(DirectOptions)
    if runner in _LOCAL_RUNNERS:
        options.view_as(StandardOptions).runner = "FnApiRunner"
        if direct.direct_num_workers != 1 and direct.direct_running_mode == "in_memory":
            direct.direct_running_mode = "multi_processing"
    elif direct.direct_running_mode != "in_memory":
        # Some of Beam's runners hand it on to the local one, which would listen on all addresses of this machine.
        raise UsageError(
            f"--direct_running_mode {direct.direct_running_mode}: is for runs on this machine; leave out this option, "
            f"or --runner {runner}"
        )
    return options


def take_beam_options(arguments: Sequence[str], own: Mapping[str, bool]) -> tuple[list[str], list[str]]:
    """Splits a command line into the command's options and Beam's.

    Args:
        arguments: options and positional arguments in any order.
        own: the options of the command, each with whether it takes a value.

    Returns:
        (the command's own arguments, Beam's options with their values), both in their old order.

    Raises:
        UsageError: an option is neither.

    >>> take_beam_options(["--runner", "DirectRunner", "mix.yaml", "--output=out"], {"--output": True})
    (['mix.yaml', '--output=out'], ['--runner', 'DirectRunner'])
    """
    known = _parser()._option_string_actions
    may_have_more = runner_name(arguments) in RUNNERS_WITH_MORE_OPTIONS
    ours: list[str] = []
    beams: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, has_value, _ = argument.partition("=")
        if argument == "--":
            ours += [argument, *rest]
            break
        if not argument.startswith("--") or name in own:
            into, takes_value = ours, own.get(name, False)
        elif name in known:
            into, takes_value = beams, known[name].nargs != 0
        elif may_have_more:
            into, takes_value = beams, False
        else:
            raise _unknown(name, own, known)
        into.append(argument)
        if takes_value and not has_value and rest and not rest[0].startswith("--"):
            into.append(rest.pop(0))
    return ours, beams


@functools.cache
def _parser() -> argparse.ArgumentParser:
    """Beam's parser of all its options."""
    found: list[argparse.ArgumentParser] = []
    PipelineOptions([]).get_all_options(add_extra_args_fn=found.append)
    (parser,) = found
    parser.exit_on_error = False
    return parser


def _check(arguments: Sequence[str], runner: str | None) -> None:
    parser = _parser()
    try:
        known, unknown = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise UsageError(f"{error.argument_name}: {error.message}") from error
    if known.dry_run:
        # To some runners it says to do nothing, to others nothing, and it is set by "false" as well.
        raise UsageError(
            "--dry_run: is for tests of Beam's own, and does not keep a job from being done; leave it out. build and "
            "vocab "
            "have --dry-run, which checks all and builds nothing"
        )
    if unknown and runner not in RUNNERS_WITH_MORE_OPTIONS:
        raise _unknown(unknown[0].partition("=")[0], (), parser._option_string_actions)
    names = StandardOptions.KNOWN_RUNNER_NAMES
    if runner and runner.rpartition(".")[2].lower().removesuffix("runner") == "dask":
        raise UsageError(
            f"--runner {runner}: Beam's DaskRunner cannot run this job: it leaves out steps without an error; "
            "docs/runners.md says which runners are proven"
        )
    if runner and "." not in runner and runner not in names:
        near = _nearest(runner, names)
        raise UsageError(f"--runner {runner}: Beam has no such runner{near}; it has {', '.join(names)}")


def runner_name(arguments: Sequence[str]) -> str | None:
    """The runner that is asked for, by its full name.

    Beam takes a name in any case, without its "Runner", or with the module that it is in.

    >>> runner_name(["--runner=apache_beam.runners.direct.DirectRunner"])
    'DirectRunner'
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--runner", nargs="?")
    given: str | None = parser.parse_known_args(list(arguments))[0].runner
    if given is None:
        return None
    short = given.rpartition(".")[2] if given.startswith("apache_beam.") else given
    wanted = short.lower().removesuffix("runner")
    return next((name for name in StandardOptions.KNOWN_RUNNER_NAMES if name.lower() == f"{wanted}runner"), given)


def _unknown(name: str, own: Iterable[str], known: Iterable[str]) -> UsageError:
    return UsageError(
        f"{name}: neither this command nor Beam has such an option{_meant(name, own, known)}; --help lists the "
        "command's, and says where Beam's are listed"
    )


def _meant(name: str, own: Iterable[str], known: Iterable[str]) -> str:
    """A guess at the option that was meant: one of the command's own first, and one of Beam's where it is closer.

    >>> _meant("--ouput", ["--output"], ["--gcp_output"]), _meant("--direct_num_worker", ["--quiet"], ["--runner"])
    (' (did you mean --output?)', '')
    """
    near = difflib.get_close_matches(name, [one for one in own if one.startswith("--")], n=1)
    beams = difflib.get_close_matches(name, list(known), n=1)
    if near and beams and _likeness(name, beams[0]) > _likeness(name, near[0]):
        return f" (did you mean {near[0]}, or Beam's {beams[0]}?)"
    near = near or beams
    return f" (did you mean {near[0]}?)" if near else ""


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other, one).ratio()


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
