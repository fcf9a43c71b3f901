"""`python -m launch.blend PLAN RUN` writes an order below a run's folder, lets MaxText check it, and notes it there.

The script of a dry run does so right before the trainer.
"""

from __future__ import annotations

import sys

from launch.blend.check import write_order
from launch.blend.plan import BlendPlan
from launch.blend.write import note_order, order_folder
from transforms.errors import BroetchenError
from transforms.files import storage


def main() -> None:
    """See the module."""
    plan, run = sys.argv[1:]
    try:
        wanted = BlendPlan.model_validate_json(storage.read_bytes(plan))
        print(write_order(wanted, run))
        note_order(run, order_folder(run, wanted.digest()))
    except (BroetchenError, ValueError) as error:
        sys.exit(f"{run}: the order cannot be written: {error}")


if __name__ == "__main__":
    main()
