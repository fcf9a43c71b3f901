"""gcloud, for TPUs: commands as lists of arguments, answers as JSON, and errors that say what to do.

gcloud rather than google-cloud-tpu, the API's client: it also has the ssh and scp to all workers of a slice (keys, OS
Login, addresses), which would have to be written again around the client; Google's own instructions use it; people who
train on TPUs have it, signed in to the right account; and its commands can be shown, and run by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from launch import processes
from launch.job import Command
from transforms.errors import BroetchenError, one_line

_MAX_MESSAGE = 600


class GcloudError(BroetchenError):
    """gcloud failed.

    `kind` is one of `KINDS`; "remote", where a command on the machines failed, with `code`; or "other".
    """

    def __init__(self, message: str, kind: str, code: int) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code


@dataclass(frozen=True)
class _ErrorKind:
    name: str
    pattern: re.Pattern[str]
    advice: str


# In this order: a wrong zone is reported as a missing permission, and a missing sign-in as either.
_KINDS = tuple(
    _ErrorKind(name, re.compile(pattern, re.IGNORECASE | re.DOTALL), advice)
    for name, pattern, advice in (
        (
            "signed-out",
            r"active account selected|auth tokens|Reauthentication|invalid_grant|UNAUTHENTICATED",
            "sign in with: gcloud auth login",
        ),
        (
            "no-project",
            r"attribute \[project\]|property \[project\]",
            "name the project as `project` in the config, or set gcloud's with: gcloud config set project PROJECT",
        ),
        (
            "api-disabled",
            r"API has not been used|SERVICE_DISABLED|API .{0,80}is not enabled|not enabled on project",
            "enable it with: gcloud services enable tpu.googleapis.com",
        ),
        (
            "wrong-zone",
            r"permission denied on 'locations/|location .{0,80}(?:not found|may not exist|is not supported)|"
            r"accelerator ?type .{0,120}(?:not found|not available|not supported|invalid)|"
            r"zone .{0,80}(?:not found|does not exist|invalid)|Unknown (?:zone|location)",
            "this zone does not have this kind of TPU for you; see https://cloud.google.com/tpu/docs/regions-zones and "
            "gcloud compute tpus accelerator-types list --zone=ZONE",
        ),
        (
            "quota",
            r"quota",
            "ask for more at https://console.cloud.google.com/iam-admin/quotas (spot has a quota of its own), take a "
            "smaller slice, or delete requests that are no longer needed: failed and suspended ones count",
        ),
        (
            "no-capacity",
            r"no more capacity|insufficient .{0,40}capacity|resource_availability|RESOURCE_EXHAUSTED|stockout",
            "there are no such TPUs free now; try another zone, or again later",
        ),
        (
            "permission",
            r"PERMISSION_DENIED|permission .{0,200}denied|does not have permission|forbidden|\b403\b",
            "ask for the role TPU Admin (roles/tpu.admin) in this project, and Service Account User for the machines' "
            "account",
        ),
        ("exists", r"ALREADY_EXISTS|already exists|\b409\b", "choose another `name` in the config's section"),
        ("not-found", r"NOT_FOUND|was not found|could not be found|\b404\b", "check the name, zone and project"),
        (
            "no-key",
            r"not present in the SSH agent|ssh-add",
            "several workers need your key in an agent: run eval \"$(ssh-agent)\" and ssh-add "
            "~/.ssh/google_compute_engine, then this again",
        ),
        (
            "unreachable",
            r"exited with return code \[255\]|connection (?:refused|closed|reset|timed out)|Broken pipe|"
            r"(?:state|TPU) .{0,60}(?:PREEMPTED|TERMINATED|unusable)",
            "the machine is not reachable: is it up, and does the network's firewall let ssh in?",
        ),
    )
)  # fmt: skip

KINDS = tuple(kind.name for kind in _KINDS)


def kind_and_advice(errors: str) -> tuple[str, str]:
    """The kind of error that gcloud's messages tell of, and the remedy.

    >>> kind_and_advice("ERROR: (gcloud.x) Quota limit 'TPUV6EPerProjectPerZoneForTPUAPI' has been exceeded")[0]
    'quota'
    """
    for kind in _KINDS:
        if kind.pattern.search(errors):
            return kind.name, kind.advice
    return "other", "see what was printed before"


def message_of(errors: str) -> str | None:
    """gcloud's own message, on one line, without the notes before it; None where there is none."""
    lines = errors.splitlines()
    starts = [index for index, line in enumerate(lines) if line.startswith("ERROR:")]
    if not starts:
        return None
    text = one_line("\n".join(lines[starts[-1] :])).removeprefix("ERROR: ")
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}…"


class Gcloud:
    """gcloud in one project and zone."""

    def __init__(self, zone: str, project: str | None) -> None:
        self._options = (f"--zone={zone}", *((f"--project={project}",) if project else ()), "--quiet")

    def command(self, *arguments: str, purpose: str) -> Command:
        """`gcloud compute tpus …` with zone and project; values of options are in one argument with their names."""
        return Command(("gcloud", "compute", "tpus", *arguments, *self._options), purpose)

    def run(self, command: Command) -> str:
        """The output of the command.

        Raises:
            GcloudError: it failed.
        """
        return _checked(command, processes.run(command))

    def show(self, command: Command) -> None:
        """Lets the user see the output of the command.

        Raises:
            GcloudError: it failed.
        """
        _checked(command, processes.show(command))

    def json(self, command: Command) -> Any:
        """The answer of the command, which has `--format=json`.

        Raises:
            GcloudError: it failed.
            BroetchenError: it answered something else.
        """
        answer = self.run(command)
        try:
            return json.loads(answer)
        except ValueError as error:
            what = f"gcloud answered no JSON but {one_line(answer)[:200]!r}"
            raise BroetchenError(f"{command.purpose}: {what}; is it up to date? (gcloud components update)") from error


# The exit code of ssh where ssh itself failed, and not the command that it ran.
_NO_CONNECTION = 255


def _checked(command: Command, outcome: processes.Outcome) -> str:
    if not outcome.code:
        return outcome.output
    message = message_of(outcome.errors)
    if message is not None:
        kind, advice = kind_and_advice(message)
    elif outcome.code == _NO_CONNECTION:
        message, (kind, advice) = "no connection to the machine", kind_and_advice("connection refused")
    else:
        # The exit status of a remote command is handed on without a message.
        said = one_line("\n".join(outcome.errors.splitlines()[-3:]))
        message = f"ended with {outcome.code}{f' after: {said}' if said else ''}"
        kind, advice = "remote", "see what was printed before"
    raise GcloudError(f"{command.purpose}: {message}; {advice}", kind, outcome.code)


def retried[T](attempt: Callable[[], T], *, times: int, kinds: tuple[str, ...], wait: Callable[[], None]) -> T:
    """The result of `attempt`, which is made up to `times` times where gcloud fails by one of `kinds`."""
    for _ in range(times - 1):
        try:
            return attempt()
        except GcloudError as error:
            if error.kind not in kinds:
                raise
            wait()
    return attempt()
