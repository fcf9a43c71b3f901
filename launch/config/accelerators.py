"""The meaning of a TPU slice's name: `v4-32`, `v6e-8`.

The number in a name is one of TensorCores for v4 and v5p, which have two in each chip, and one of chips for v5e and v6e
(https://cloud.google.com/tpu/docs/v4, …/v5p, …/v5e, …/v6e). Either way JAX sees one device for each chip: the two cores
of a v4 or v5p chip work as one.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from transforms.errors import UsageError
from transforms.quantities import shown


@dataclass(frozen=True)
class Generation:
    """A kind of TPU.

    Attributes:
        name: in the name of a slice.
        label: the name by which people know it.
        cores_per_chip: its TensorCores.
        runtime_version: the machine image for JAX (https://cloud.google.com/tpu/docs/runtimes).
        alone: chips that one TPU VM can have where it is all of its slice; machines of larger slices have four.
        tflops: of a chip at its best, in bfloat16, by its page (https://cloud.google.com/tpu/docs/v4 and so on).
    """

    name: str
    label: str
    cores_per_chip: int
    runtime_version: str
    alone: int
    tflops: int


# v2, v3 and TPU7x are left out: whether MaxText 0.2.5 trains on the first two, and the meaning of the numbers in the
# names of the last, could not be looked up.
GENERATIONS = {
    generation.name: generation
    for generation in (
        Generation("v4", "v4", 2, "tpu-ubuntu2204-base", alone=4, tflops=275),
        Generation("v5litepod", "v5e", 1, "v2-alpha-tpuv5-lite", alone=8, tflops=197),
        Generation("v5p", "v5p", 2, "v2-alpha-tpuv5", alone=4, tflops=459),
        Generation("v6e", "v6e", 1, "v2-alpha-tpuv6e", alone=8, tflops=918),
    )
}

CHIPS_PER_HOST = 4
"""The chips of each machine of a slice, and of all nodes that xpk makes (`system_characteristics.py`, 1.16)."""

_NAME = re.compile(r"(?P<generation>[a-z0-9]+)-(?P<number>[1-9][0-9]{0,4})")


@dataclass(frozen=True)
class Accelerator:
    """A slice of TPUs, and its number of chips, which is also that of JAX's devices."""

    name: str
    generation: Generation
    chips: int

    @property
    def machines(self) -> int:
        """The machines of a TPU VM of it.

        >>> [parse_accelerator(name).machines for name in ("v6e-8", "v6e-16", "v4-32")]
        [1, 4, 4]
        """
        return 1 if self.chips <= self.generation.alone else -(-self.chips // CHIPS_PER_HOST)


def parse_accelerator(name: str) -> Accelerator:
    """The slice that `name` stands for.

    >>> parse_accelerator("v4-32").chips, parse_accelerator("v6e-8").chips
    (16, 8)

    Raises:
        UsageError: there is none of this name.
    """
    match = _NAME.fullmatch(name)
    generation = GENERATIONS.get(match["generation"]) if match else None
    if match is None or generation is None:
        known = ", ".join(GENERATIONS)
        written = name.partition("-")[0].replace("v5e", "v5litepod")
        near = difflib.get_close_matches(written, GENERATIONS, n=1)
        hint = f"did you mean {near[0]}-8?" if near else "write it as v4-8, v5litepod-16 or v6e-8"
        raise UsageError(f"{shown(name)} is no TPU slice that is known here ({known}, and a number); {hint}")
    chips, rest = divmod(int(match["number"]), generation.cores_per_chip)
    if rest or not chips:
        what = f"{generation.label} has {generation.cores_per_chip} TensorCores in a chip, and the number counts these"
        raise UsageError(f"{shown(name)} is no TPU slice: {what}; the smallest is {generation.name}-8")
    return Accelerator(name, generation, chips)
