"""Fixtures for all tests."""

from tests.gcs_emulator import gcs_bucket, gcs_prefix

__all__ = ["gcs_bucket", "gcs_prefix"]
