"""Datasets in Megatron's format for tests: pairs of files by a plain loop, and what an exact order reads."""
