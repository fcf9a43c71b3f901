"""The contenders, one script each. Every script runs alone (``--help``) and imports nothing of ours."""
