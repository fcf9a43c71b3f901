"""Parquet: sources, footers, texts, shards of text."""
