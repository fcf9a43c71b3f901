"""Finished datasets: the manifest, readers of shards and splits, and the check of a dataset against its manifest."""
