"""The mistakes campaign: mistakes of new users, the messages, the exit codes, and the time until then."""
