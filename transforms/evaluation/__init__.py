"""Evaluating tokenizers."""
