"""A bounded look into a finished dataset."""
