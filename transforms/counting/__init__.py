"""Counts of tokens, and the ledger of counts."""
