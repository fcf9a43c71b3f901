"""Evaluating tokenizers: statistics of text, the metrics that follow, and `EvaluateTokenizers`."""
