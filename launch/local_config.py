"""The section `local` of a training config: how `--target local` trains."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from transforms.config_section import Section, Text


class LocalConfig(Section):
    """How to train on this machine."""

    accelerator: Literal["cpu", "gpu"] = Field(
        default="cpu", description="The processor, or this machine's NVIDIA GPUs, all of them.", examples=["gpu"]
    )
    python: Text | None = Field(
        default=None,
        description="The interpreter of an environment with MaxText 0.2.5 in it, where there is one already, relative "
        "to the config. By default an environment is made, once.",
        examples=["/opt/maxtext/bin/python"],
    )
