"""Datasets in Megatron's format for tests: pairs of files by a plain loop, and the sequences of an exact order."""
