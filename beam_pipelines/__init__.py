"""The jobs that a person starts, the schema of their configs, their tables and reports, and the command line."""
