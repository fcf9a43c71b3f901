"""A slice of TPUs by a queued resource of Cloud TPU: requested once, waited for, found again by its name, deleted.

The states of the request are explained in `queued_resource`; those here are of the node that it becomes
(https://cloud.google.com/tpu/docs/reference/rest/v2/projects.locations.nodes#state).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from launch.config.tpu import TpuVmConfig
from launch.job import Command
from launch.tpu.consent import ask, ask_about_cost
from launch.tpu.gcloud import Gcloud, GcloudError
from launch.tpu.queued_resource import GONE, LABEL, PREEMPTED, QueuedResource
from transforms.errors import BroetchenError, UsageError

_LOGGER = logging.getLogger(__name__)

_POLLS_BETWEEN_NEWS = 40
_NODE_WAITING = ("STATE_UNSPECIFIED", "CREATING", "STARTING", "RESTARTING", "REPAIRING", "")
_NODE_GONE = ("PREEMPTED", "TERMINATED")


class PreemptedError(BroetchenError):
    """The slice was taken away."""


class TpuSlice:
    """A slice by its name, in the zone and of the kind that the config says."""

    def __init__(self, name: str, config: TpuVmConfig, gcloud: Gcloud, poll_s: float) -> None:
        """Nothing is asked or made yet; `poll_s` are the seconds between two looks while it waits."""
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
        ended = request is not None and (request.state in ("FAILED", *GONE) or self.is_preempted(request))
        if request is not None and not ended:
            self._check_same(request)
            _LOGGER.info("%s: requested already, %s%s", self.name, request.state, request.explain_state())
        else:
            self._agree(yes=yes)
            if request is not None:
                _LOGGER.info("%s: %s%s; requests it again", self.name, request.state, request.explain_state())
                self._gcloud.run(self._delete_command())
            self._create()
        self._await()

    def delete(self, *, yes: bool) -> bool:
        """Deletes slice and request, in any state; False where there is none. Without `yes` it asks.

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
                    raise BroetchenError(f"{self.name}: the request has failed{request.explain_state()}")
                node = self.node_state() if request.state == "ACTIVE" else ""
                if node == "READY":
                    return
                if request.state in GONE and request.by_user:
                    raise BroetchenError(f"{self.name}: {request.state}{request.explain_state()}")
                if request.state in GONE or node in _NODE_GONE:
                    raise PreemptedError(f"{self.name}: {PREEMPTED}")
                if node and node not in _NODE_WAITING:
                    raise BroetchenError(
                        f"{self.name}: the slice is {node}; delete it (checkpoints stay), and start again"
                    )
                news = f"{request.state}{request.explain_state()}{f', the slice is {node}' if node else ''}"
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
        return request.state in GONE or (request.state == "ACTIVE" and self.node_state() in _NODE_GONE)

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
            run = (self._node().get("labels") or {}).get(LABEL)
        if run != self.name:
            raise UsageError(
                f"{self.name}: there is a TPU request of this name in {self._config.zone} that was not made by "
                f"Brötchen (it lacks the label {LABEL}={self.name}); give another `tpu_vm.name`"
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
        """The command that makes the request."""
        section = self._config
        options = {
            "--node-id": self.name,
            "--accelerator-type": section.accelerator,
            "--runtime-version": section.image(),
            "--labels": f"{LABEL}={self.name}",
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
        """The command that prints the state of the request, and nothing else."""
        return self._gcloud.command(
            "queued-resources",
            "describe",
            self.name,
            "--format=value(state.state)",
            purpose="waits until the slice is there; Ctrl-C where it has failed",
        )
