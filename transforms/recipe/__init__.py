"""The spec that a dataset is built from, and the plan that follows: the layout of shards, the fingerprint."""
