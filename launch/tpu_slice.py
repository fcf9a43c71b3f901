"""A slice of TPUs by a queued resource of Cloud TPU: requested once, waited for, found again by its name, deleted.

States are those of https://cloud.google.com/tpu/docs/queued-resources and of the node that the request becomes. A
preempted spot slice goes to SUSPENDED and never comes back from it, so that its request is deleted and made anew.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launch.consent import ask, ask_about_cost
from launch.gcloud import Gcloud, GcloudError, explain
from launch.job import Command
from launch.tpu_config import TpuVmConfig
from transforms.errors import BroetchenError, UsageError

_LOGGER = logging.getLogger(__name__)

_POLLS_BETWEEN_NEWS = 40
# Which run a slice was made for. What lacks it is not ours, and neither used nor deleted.
_LABEL = "broetchen"

_WAITING = {
    "CREATING": "the request is looked at",
    "ACCEPTED": "the request is in the queue",
    "WAITING_FOR_RESOURCES": "it waits for free TPUs, which may take hours",
    "PROVISIONING": "TPUs are found, the machines are made",
}
_GONE = ("SUSPENDING", "SUSPENDED")
_NODE_WAITING = ("STATE_UNSPECIFIED", "CREATING", "STARTING", "RESTARTING", "REPAIRING", "")
_NODE_GONE = ("PREEMPTED", "TERMINATED")

_ANEW = "`start` requests it anew, and the run goes on from its last checkpoint"
PREEMPTED = f"it was preempted; {_ANEW}"


class PreemptedError(BroetchenError):
    """The slice was taken away."""


@dataclass(frozen=True)
class QueuedResource:
    """A request for TPUs as Cloud TPU describes it.

    Attributes:
        state: of the request.
        by_user: whether a person has brought it into this state, and not the service.
        accelerator, spot: what was requested.
        run: the label's value, None without one.
        error: why it failed; "" otherwise.
    """

    state: str
    by_user: bool
    accelerator: str
    spot: bool
    run: str | None
    error: str

    @staticmethod
    def parse(answer: Mapping[str, Any]) -> QueuedResource:
        """From the answer of `gcloud compute tpus queued-resources describe --format=json`.

        >>> answer = {"state": {"state": "ACTIVE"}, "tpu": {"nodeSpec": [{"node": {"acceleratorType": "v6e-8"}}]}}
        >>> QueuedResource.parse(answer).accelerator
        'v6e-8'
        """
        state = answer.get("state") or {}
        specs = (answer.get("tpu") or {}).get("nodeSpec") or [{}]
        node = specs[0].get("node") or {}
        failure = (state.get("failedData") or {}).get("error") or {}
        return QueuedResource(
            state=str(state.get("state", "")),
            by_user=state.get("stateInitiator") == "USER",
            accelerator=str(node.get("acceleratorType", "")),
            spot="spot" in answer,
            run=(node.get("labels") or {}).get(_LABEL),
            error=str(failure.get("message", "")),
        )


def resource_name(name: str) -> str:
    """A run's name as Google Cloud takes it: lower case, letters, digits and -, at most 40 of them.

    >>> resource_name("Nano_1.2"), resource_name("2nd")
    ('nano-1-2', 'run-2nd')
    """
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    text = text if text[:1].isalpha() else f"run-{text}"
    return text[:40].rstrip("-")


class TpuSlice:
    """A slice by its name, in the zone and of the kind that the config says."""

    def __init__(self, name: str, config: TpuVmConfig, gcloud: Gcloud, poll_s: float) -> None:
        """Nothing is asked or made yet; `poll_s` are the seconds between two looks at what is waited for."""
        self.name = name
        self._config = config
        self._gcloud = gcloud
        self._poll_s = poll_s

    def secure(self, *, yes: bool) -> None:
        """Returns once the slice is there: the one that was requested already, or a new one. Without `yes` it asks.

        Raises:
            UsageError: the name is taken by another one, or nobody can be asked about the cost.
            PreemptedError: it was taken away while it was waited for.
            GcloudError: gcloud refused.
            BroetchenError: the request failed or is gone.
        """
        request = self.request()
        if request is not None:
            self._check_ours(request)
            request = self._settled(request)
        ended = request is not None and (request.state in ("FAILED", *_GONE) or self.is_preempted(request))
        if request is not None and not ended:
            self._check_same(request)
            _LOGGER.info("%s: requested already, %s%s", self.name, request.state, explained(request))
        else:
            self._agree(yes=yes)
            if request is not None:
                _LOGGER.info("%s: %s%s; requests it anew", self.name, request.state, explained(request))
                self._gcloud.run(self._delete_command())
            self._create()
        self._await()

    def delete(self, *, yes: bool) -> bool:
        """Deletes slice and request, in whatever state they are; False where there is none. Without `yes` it asks.

        Raises:
            UsageError: it is not ours.
            GcloudError: gcloud refused.
        """
        request = self.request()
        if request is None:
            return False
        self._check_ours(request)
        if not yes:
            ask(f"Delete {self.name} ({request.accelerator}, {request.state})? Its checkpoints stay in the bucket.")
        self._gcloud.run(self._delete_command())
        return True

    def _agree(self, *, yes: bool) -> None:
        spot = self._config.spot
        again = ", and again after each preemption" if spot and self._config.resume_preempted else ""
        what = f"A {self._config.accelerator}{' spot' if spot else ''} slice in {self._config.zone}{again}"
        ask_about_cost(what, self._config.price(), yes=yes)

    def _create(self) -> None:
        try:
            self._gcloud.run(self.create_command())
        except GcloudError as error:
            if error.kind == "exists":
                raise UsageError(
                    f"{error}: the name {self.name} is taken in this zone; give another `tpu_vm.name`"
                ) from error
            raise

    def _await(self) -> None:
        seen = ""
        polls = 0
        try:
            while True:
                request = self.request()
                if request is None:
                    raise BroetchenError(f"{self.name}: the request was deleted while it was waited for; start again")
                if request.state == "FAILED":
                    raise BroetchenError(f"{self.name}: the request has failed{explained(request)}")
                node = self.node_state() if request.state == "ACTIVE" else ""
                if node == "READY":
                    return
                if request.state in _GONE and request.by_user:
                    raise BroetchenError(f"{self.name}: {request.state}{explained(request)}")
                if request.state in _GONE or node in _NODE_GONE:
                    raise PreemptedError(f"{self.name}: {PREEMPTED}")
                if node and node not in _NODE_WAITING:
                    raise BroetchenError(
                        f"{self.name}: the slice is {node}; delete it (checkpoints stay), and start again"
                    )
                news = f"{request.state}{explained(request)}{f', the slice is {node}' if node else ''}"
                if news != seen or polls % _POLLS_BETWEEN_NEWS == 0:
                    _LOGGER.info("%s: %s", self.name, news)
                seen, polls = news, polls + 1
                self.wait()
        except KeyboardInterrupt:
            _LOGGER.info("%s: the request stays in the queue, and costs once it is met; delete withdraws it", self.name)
            raise

    def _settled(self, request: QueuedResource) -> QueuedResource | None:
        """The request once it is no longer being deleted or suspended."""
        found: QueuedResource | None = request
        while found is not None and found.state in ("DELETING", "SUSPENDING"):
            _LOGGER.info("%s: %s; waits for its end", self.name, found.state)
            self.wait()
            found = self.request()
        return found

    def request(self) -> QueuedResource | None:
        """The request as it is now; None where there is none."""
        command = self._gcloud.command(
            "queued-resources", "describe", self.name, "--format=json", purpose=f"looks for {self.name}"
        )
        try:
            return QueuedResource.parse(self._gcloud.json(command))
        except GcloudError as error:
            if error.kind == "not-found":
                return None
            raise

    def node_state(self) -> str:
        """The state of the slice itself; "" where it does not exist yet."""
        return str(self._node().get("state", ""))

    def _node(self) -> Mapping[str, Any]:
        command = self._gcloud.command(
            "tpu-vm", "describe", self.name, "--format=json", purpose=f"looks at the machines of {self.name}"
        )
        try:
            node: Mapping[str, Any] = self._gcloud.json(command)
        except GcloudError as error:
            if error.kind == "not-found":
                return {}
            raise
        return node

    def is_preempted(self, request: QueuedResource | None) -> bool:
        """Whether the slice was taken away, and not deleted by a person."""
        if request is None or request.by_user:
            return False
        return request.state in _GONE or (request.state == "ACTIVE" and self.node_state() in _NODE_GONE)

    def require_ours(self) -> QueuedResource:
        """The request, which has to be there.

        Raises:
            BroetchenError: it is not.
            UsageError: it is somebody else's.
        """
        request = self.request()
        if request is None:
            raise BroetchenError(f"{self.name}: there is no such slice in {self._config.zone}; start the run first")
        self._check_ours(request)
        return request

    def _check_ours(self, request: QueuedResource) -> None:
        run = request.run
        if run is None and request.state == "ACTIVE":
            run = (self._node().get("labels") or {}).get(_LABEL)
        if run != self.name:
            raise UsageError(
                f"{self.name}: there is a TPU request of this name in {self._config.zone} that was not made by "
                f"Brötchen (it lacks the label {_LABEL}={self.name}); give another `tpu_vm.name`"
            )

    def _check_same(self, request: QueuedResource) -> None:
        there = f"{request.accelerator or self._config.accelerator}{' spot' if request.spot else ''}"
        wanted = f"{self._config.accelerator}{' spot' if self._config.spot else ''}"
        if there != wanted:
            raise UsageError(
                f"{self.name}: it is a {there} slice, and the config wants {wanted}; `delete` it first, or give "
                "another `tpu_vm.name`"
            )

    def wait(self) -> None:
        """Until the next look."""
        time.sleep(self._poll_s)

    def create_command(self) -> Command:
        """What makes the request."""
        section = self._config
        options = {
            "--node-id": self.name,
            "--accelerator-type": section.accelerator,
            "--runtime-version": section.image(),
            "--labels": f"{_LABEL}={self.name}",
            "--network": section.network,
            "--subnetwork": section.subnetwork,
            "--service-account": section.service_account,
            "--valid-until-duration": section.give_up_after,
        }
        flags = [*(("--spot",) if section.spot else ()), *(("--internal-ips",) if section.internal_ips else ())]
        given = [f"{option}={value}" for option, value in options.items() if value is not None]
        what = f"requests a {section.accelerator} slice"
        return self._gcloud.command("queued-resources", "create", self.name, *given, *flags, purpose=what)

    def _delete_command(self) -> Command:
        what = f"deletes {self.name} and its request"
        return self._gcloud.command("queued-resources", "delete", self.name, "--force", purpose=what)

    def state_command(self) -> Command:
        """What prints the state of the request, and nothing else."""
        return self._gcloud.command(
            "queued-resources",
            "describe",
            self.name,
            "--format=value(state.state)",
            purpose="waits until the slice is there; Ctrl-C where it has failed",
        )


def explained(request: QueuedResource) -> str:
    """What its state means, and what to do, in parentheses; "" where it is ready."""
    if request.state in _WAITING:
        return f" ({_WAITING[request.state]})"
    if request.state in _GONE:
        return f" (somebody has deleted the slice; {_ANEW})" if request.by_user else f" ({PREEMPTED})"
    if request.state == "FAILED":
        message = request.error or "without a reason given"
        return f" ({message}; {explain(message)[1] if request.error else 'start it again'})"
    return ""
