"""Counts of tokens, and the ledger that remembers them."""
