"""The build of datasets as one PTransform: shards, cut, publication, and the unfinished work in an output."""
