"""The exact order: which sequence of which dataset each step trains on, as files that MaxText follows."""
