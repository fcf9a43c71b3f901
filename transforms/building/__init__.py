"""The build of datasets: shards, cut, publish, and what lies in an output meanwhile."""
