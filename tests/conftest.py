"""Fixtures for all tests, and how Hypothesis runs."""

import os

from hypothesis import settings

from tests.gcs_emulator import gcs_bucket, gcs_prefix

__all__ = ["gcs_bucket", "gcs_prefix"]

# No test depends on how fast the machine is. In CI the examples are always the same ones; elsewhere they are new ones.
settings.register_profile("broetchen", deadline=None, derandomize=os.environ.get("CI") == "true", print_blob=True)
settings.load_profile("broetchen")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors, since many tests wait for what they have started."""
    return (os.cpu_count() or 1) + 1
