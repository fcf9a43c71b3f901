"""Tests of `transforms.bpe`."""
