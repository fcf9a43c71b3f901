"""Exact budgets: arithmetic on counts, and the cut of text."""
