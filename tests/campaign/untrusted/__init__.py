"""Outputs and ledgers that come from a stranger: how each command ends that reads them."""
