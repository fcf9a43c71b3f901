"""The jobs that a person starts, one module each, the schema of their config, and the command line."""
