"""Batches of documents as arrays of bytes: their characters, the cuts between them, and the engine for each part."""
