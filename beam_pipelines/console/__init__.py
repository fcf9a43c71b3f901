"""Standard error and output, progress, and the layout of tables."""
