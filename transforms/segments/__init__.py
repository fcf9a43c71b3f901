"""Batches of documents as arrays of bytes: their characters, where they can be cut, and what encodes which part."""
