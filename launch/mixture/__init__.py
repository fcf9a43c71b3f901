"""MaxText's mixture of built datasets."""
