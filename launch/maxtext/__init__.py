"""A run of MaxText: from the config to the checked job and its command, and the checkpoints that it leaves."""
