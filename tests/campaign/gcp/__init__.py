"""A check on a real Google Cloud, for people who have an account: `make gcp-check`."""
