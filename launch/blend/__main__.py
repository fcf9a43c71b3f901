"""`python -m launch.blend PLAN FOLDER` writes the order of a plan into a folder, and lets MaxText check it."""

from __future__ import annotations

import sys

from launch.blend.check import check_blend
from launch.blend.plan import BlendPlan
from launch.blend.write import write_blend
from transforms.errors import BroetchenError
from transforms.files import storage


def main() -> None:
    """See the module."""
    plan, folder = sys.argv[1:]
    try:
        blend = write_blend(BlendPlan.model_validate_json(storage.read_bytes(plan)), folder)
        print(check_blend(blend, folder))
    except (BroetchenError, ValueError) as error:
        sys.exit(f"{folder}: the order cannot be written: {error}")


if __name__ == "__main__":
    main()
