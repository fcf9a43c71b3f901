"""A job that a service runs, so that it goes on without the process that started it, as a lock names it."""

from __future__ import annotations

import dataclasses

from transforms.errors import one_line


@dataclasses.dataclass(frozen=True)
class RemoteJob:
    """A job of Dataflow or of a portable job service.

    Attributes:
        runner: Beam's name of the runner.
        endpoint: of the service; empty where it is the runner's own choice.
        project, region: of a Dataflow job; else empty.
        name: by which the service can be asked for it before its id is known.
        job: the id that the service gave to it; empty until then.
        build: a SHA-256 that two builds share if they build the same, by their configs.
    """

    runner: str
    endpoint: str = ""
    project: str = ""
    region: str = ""
    name: str = ""
    job: str = ""
    build: str = ""

    def __str__(self) -> str:
        place = f"at {self.endpoint}" if self.endpoint else ""
        if self.project:
            place = f"of project {self.project} in {self.region} {place}"
        named = f"{self.name} (id {self.job})" if self.job else self.name
        return one_line(f"the {self.runner} job {named} {place}")
