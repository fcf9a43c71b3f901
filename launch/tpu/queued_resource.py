"""A request for TPUs as Cloud TPU describes it, and the meaning of its states. Pure functions, without I/O.

States are those of https://cloud.google.com/tpu/docs/queued-resources. A preempted spot slice goes to SUSPENDED and
never comes back from it, so that its request is deleted and made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launch.tpu.gcloud import kind_and_advice

LABEL = "broetchen"
"""The label that says which run a slice was made for. A slice without it is not ours, and neither used nor deleted."""

GONE = ("SUSPENDING", "SUSPENDED")
"""The states of a slice that was taken away, or that somebody has deleted."""

_WAITING = {
    "CREATING": "the request is looked at",
    "ACCEPTED": "the request is in the queue",
    "WAITING_FOR_RESOURCES": "it waits for free TPUs, which may take hours",
    "PROVISIONING": "TPUs are found, the machines are made",
}
_AGAIN = "`start` requests it again, and the run goes on from its last checkpoint"
PREEMPTED = f"it was preempted; {_AGAIN}"
"""The words for a slice that was taken away."""


@dataclass(frozen=True)
class QueuedResource:
    """A request for TPUs.

    Attributes:
        state: of the request.
        by_user: whether a person has brought it into this state, and not the service.
        accelerator, spot: as requested.
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
            run=(node.get("labels") or {}).get(LABEL),
            error=str(failure.get("message", "")),
        )

    def explain_state(self) -> str:
        """The meaning of its state, and the remedy, in parentheses; "" where it is ready."""
        if self.state in _WAITING:
            return f" ({_WAITING[self.state]})"
        if self.state in GONE:
            return f" (somebody has deleted the slice; {_AGAIN})" if self.by_user else f" ({PREEMPTED})"
        if self.state == "FAILED":
            message = self.error or "without a reason given"
            return f" ({message}; {kind_and_advice(message)[1] if self.error else 'start it again'})"
        return ""
