"""Jobs that a service runs: what they are called, what the service says of them, and what an interrupt does."""
