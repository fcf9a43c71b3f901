"""What a dataset is built from, and the plan that follows: the spec, the layout of shards, the fingerprint."""
