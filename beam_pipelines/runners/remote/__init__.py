"""Jobs that a service runs: their names, the service's answers about them, and interrupts."""
