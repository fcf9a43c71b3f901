"""The schema of a training config."""
