"""`python -m launch.blend PLAN RUN` writes the order of a plan below a run's folder, and lets MaxText check it."""

from __future__ import annotations

import sys

from launch.blend.check import write_order
from launch.blend.plan import BlendPlan
from transforms.errors import BroetchenError
from transforms.files import storage


def main() -> None:
    """See the module."""
    plan, run = sys.argv[1:]
    try:
        print(write_order(BlendPlan.model_validate_json(storage.read_bytes(plan)), run))
    except (BroetchenError, ValueError) as error:
        sys.exit(f"{run}: the order cannot be written: {error}")


if __name__ == "__main__":
    main()
