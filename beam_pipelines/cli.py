"""The command line, `broetchen`: its commands in the order of `--help`, and the handling of their errors."""

from __future__ import annotations

import gc
import logging
import os
import resource
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from beam_pipelines.commands import building, cluster, inspection, tokenizers, training
from beam_pipelines.commands.mould import HELP_NAMES, OwnGroup, add
from beam_pipelines.console import terminal
from transforms.errors import BroetchenError, last_line, without_secrets
from transforms.files.scratch import remove_run_folders
from transforms.first_contact import expect_answers
from transforms.left_out import leave_out

app = typer.Typer(
    name="broetchen",
    cls=OwnGroup,
    context_settings=HELP_NAMES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _say_version(given: bool) -> None:
    if given:
        from importlib.metadata import version

        print(f"broetchen {version('broetchen')}")
        raise typer.Exit


@app.callback(
    help="Turns parquet text corpora into training data of an exact number of tokens: ArrayRecord shards that Grain "
    "and MaxText read.\n\nEvery command has --json, --quiet, --output and --debug. "
    "Exit codes: 0 done, 1 the job failed, 2 bad usage or config."
)
def _broetchen(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    pass


add(app, building.init)
add(app, building.build, takes_beams=True)
add(app, building.vocab, takes_beams=True)
add(app, building.plan)
add(app, building.download)
add(app, inspection.count, takes_beams=True)
add(app, inspection.verify, takes_beams=True)
add(app, inspection.status)
add(app, inspection.show)
add(app, training.mix)
add(app, inspection.report)
add(app, tokenizers.train_tokenizer, "train-tokenizer")
add(app, tokenizers.eval_tokenizer, "eval-tokenizer", takes_beams=True)
add(app, training.train)
add(app, building.demo, takes_beams=True)
_cluster = typer.Typer(
    cls=OwnGroup, no_args_is_help=True, help="Run jobs on several hosts of your own; see docs/runners.md."
)
add(_cluster, cluster.serve)
add(_cluster, cluster.worker)
app.add_typer(_cluster, name="cluster")

# Collections of garbage while everything is imported and tokenizers are parsed find none.
_OBJECTS_BEFORE_COLLECTION = 50_000

# Grain keeps a file open for each shard that it has read from, here or in a trainer that is started from here.
_OPEN_FILES = 1 << 17

# How Typer ends a command that Ctrl-C has stopped.
_INTERRUPTED = 130


def run(command: Callable[[], Any], *, debug: bool) -> int:
    """Runs a command; an error becomes its message and an exit code, and a traceback only where `debug` asks for it."""
    try:
        command()
    except SystemExit as ending:
        if ending.code == _INTERRUPTED:
            again = "; run the same command again to go on" if terminal.goes_on() else ""
            terminal.say(f"broetchen: stopped{again}")
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except Exception as error:
        if debug:
            print(without_secrets(traceback.format_exc()), file=sys.stderr, end="")
        if isinstance(error, BroetchenError):
            terminal.say(f"broetchen: {error}")
            return error.exit_code
        return _say_foreign(error)
    return 0


def _say_foreign(error: Exception) -> int:
    """Explains an error that is none of ours; returns the exit code."""
    from beam_pipelines.runners.service_errors import in_words

    if known := in_words(error):
        terminal.say(f"broetchen: {known}")
        return known.exit_code
    message = without_secrets(last_line(str(error))) or "no message"
    terminal.say(f"broetchen: unexpected {type(error).__name__}: {message}; --debug shows where")
    return BroetchenError.exit_code


def _at_home(argument: str) -> str:
    """`~` in `--output=~/x` is the home folder, as in a config: a shell takes it for one at the start of a word alone.

    >>> _at_home("--output=~no-such-user/x"), _at_home("a~b")
    ('--output=~no-such-user/x', 'a~b')
    """
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return option + equals + (os.path.expanduser(value) if value.startswith("~") else value)


def allow_open_files() -> None:
    """Lets this process and those that it starts open as many files as the system allows; often 1,024 are set."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of `broetchen`; `arguments` are those of the command line where none are given."""
    # Nothing here multiplies matrices. Without threads of NumPy's own, which looks at this when it is imported, the
    # process of a job can be forked.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Where there are no credentials, Google's sign-in asks three times, for three seconds each, whether this is a
    # machine of Google's, which would answer at once.
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "1")
    leave_out()
    allow_open_files()
    expect_answers()
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION, 20, 20)
    given = [_at_home(argument) for argument in (sys.argv[1:] if arguments is None else arguments)]
    code = run(lambda: app(given, prog_name="broetchen"), debug="--debug" in given)
    terminal.clear()
    if code:
        # Threads that Beam leaves behind after an error may be deep in native code, which aborts the process when the
        # interpreter is taken down under it.
        remove_run_folders()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit()
