"""A bounded look into a finished dataset: runs of records, how they pack, and ids as text."""
