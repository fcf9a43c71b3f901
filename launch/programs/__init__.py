"""Programs that run in environments of their own, by their paths: they import nothing of ours."""
