"""The schema of a mix config."""
