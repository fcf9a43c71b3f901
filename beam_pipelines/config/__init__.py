"""The schema of a mix config: sections, sources, values, and budgets that add up."""
