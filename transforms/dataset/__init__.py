"""Finished datasets: the manifest, and holding a dataset against it."""
