"""Training byte-level BPE."""
