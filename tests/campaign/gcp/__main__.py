"""``make gcp-check PROJECT=… BUCKET=…``: the demo mix on a real Dataflow, and a training on a TPU; see docs/runners.md.

Says what it will cost, asks, does it, deletes what it has made, and prints a table without names, to be sent to us.
"""

from __future__ import annotations

import argparse
import platform
import re
import signal
import sys
from importlib.metadata import version
from pathlib import Path

from beam_pipelines.runners.dataflow_cost import PRICES_OF, dataflow_cost
from launch.config.accelerators import parse_accelerator
from launch.config.prices import list_price
from launch.tpu.consent import ask
from tests.campaign.gcp.steps import TPU_STEPS, Check, Outcome, Setting
from transforms.errors import BroetchenError, UsageError
from transforms.files.scratch import temporary_folder

# Two jobs, of up to two machines of four processors each, for a quarter of an hour.
_JOBS_S = 2 * 2 * 4 * 900.0
_SLICE_HOURS = 0.5


def parse_arguments(arguments: list[str] | None = None) -> tuple[Setting, bool]:
    """The setting that the command line asks for, and whether it has said yes to the price.

    Raises:
        UsageError: a name can be none, or it is not clear where the TPU should be.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.gcp", description=__doc__)
    parser.add_argument("--project", default="")
    parser.add_argument("--bucket", default="", help="in the region of the jobs")
    parser.add_argument("--region", default="us-central1")
    parser.add_argument("--zone", default="", help="of the TPU; by default us-central1-b, for a v6e there")
    parser.add_argument("--tpu", default="", help=f"train {TPU_STEPS} steps on this slice, as v6e-1")
    parser.add_argument("--yes", action="store_true", help="the price is all right: do not ask")
    parser.add_argument(
        "--option", action="append", default=[], metavar="OPTION", help="one more of Beam's, as --option=--subnetwork=…"
    )
    parser.add_argument("--shards-wait", type=float, default=900.0, help="seconds until Ctrl-C at the latest")
    given = parser.parse_args(arguments)
    bucket = given.bucket.removeprefix("gs://").rstrip("/")
    for name, value, pattern in (
        ("PROJECT", given.project, r"[a-z][a-z0-9:.-]{4,61}[a-z0-9]"),
        ("BUCKET", bucket, r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"),
        ("REGION", given.region, r"[a-z]+-[a-z]+[0-9]+"),
    ):
        if not re.fullmatch(pattern, value):
            raise UsageError(
                f"{name}={value!r} is none; write: make gcp-check PROJECT=my-project BUCKET=my-bucket "
                "[REGION=us-central1] [TPU=v6e-1 ZONE=us-central1-b]"
            )
    zone = given.zone
    if given.tpu:
        accelerator = parse_accelerator(given.tpu)
        if not zone and (accelerator.generation.name, given.region) != ("v6e", "us-central1"):
            raise UsageError(f"TPU={given.tpu}: say where it is to be, as in ZONE=us-east5-b")
    return (
        Setting(
            given.project,
            bucket,
            given.region,
            zone or "us-central1-b",
            given.tpu or None,
            tuple(given.option),
            given.shards_wait,
        ),
        given.yes,
    )


def price(setting: Setting) -> str:
    """The cost of the check, in words."""
    jobs = dataflow_cost(_JOBS_S).dollars
    parts = [
        f"two jobs on Dataflow, each of up to two machines for some ten minutes: at most about ${jobs:.2f} at the list "
        f"prices of {PRICES_OF} in us-central1"
    ]
    if setting.accelerator is not None:
        listed = list_price(parse_accelerator(setting.accelerator), setting.zone, spot=False)
        if listed is None:
            parts.append(f"a {setting.accelerator} for up to half an hour, whose price in {setting.zone} is not known")
        else:
            parts.append(
                f"a {setting.accelerator} for up to half an hour: about ${float(listed.per_hour) * _SLICE_HOURS:.2f} "
                f"({listed.in_words()})"
            )
    parts.append("a few megabytes in the bucket, deleted at the end")
    return "This costs " + "; ".join(parts) + "."


def table(setting: Setting, outcomes: list[Outcome]) -> str:
    """The table to send, in Markdown; names of project and bucket are not in it."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("broetchen", "apache-beam", "array-record", "maxtext"))
    rows = [
        f"| {one.step} | {'–' if one.passed is None else 'ok' if one.passed else '**failed**'} | "
        f"{one.seconds:,.0f} | {one.note.replace('|', '/')} |"
        for one in outcomes
    ]
    where = f"{setting.region}, TPU {setting.accelerator or 'dry run'} in {setting.zone}"
    about = f"{versions}, Python {platform.python_version()}, {platform.system()}; {where}"
    return "\n".join([about, "", "| step | | seconds | note |", "| --- | --- | ---: | --- |", *rows])


def main(arguments: list[str] | None = None) -> int:
    """Runs the check; the exit code is 0 if all of it passed, 1 if not, and 2 where it could not begin."""
    try:
        setting, yes = parse_arguments(arguments)
        print(price(setting), flush=True)
        if not yes:
            ask("Go on? (YES=1 answers for scripts.)")
    except BroetchenError as error:
        print(f"gcp-check: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    # So that what was made is deleted also where this is ended by a service or a timeout.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    interrupted = False
    with temporary_folder("gcp-check") as folder:
        check = Check(setting, Path(folder), lambda line: print(line, flush=True))
        print(f"All of it is in {check.place}.", flush=True)
        try:
            check.run()
        except KeyboardInterrupt:
            interrupted = True
    print(f"\nPlease send us this table, in an issue:\n\n{table(setting, check.outcomes)}")
    return 130 if interrupted else 0 if check.passed else 1


if __name__ == "__main__":
    sys.exit(main())
