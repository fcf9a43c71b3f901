"""Sources that are odd, but whole: what is planned of them, and what becomes of it."""
