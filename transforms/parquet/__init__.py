"""Parquet: source files, footers, their text, shards of text, and `ReadParquet`."""
