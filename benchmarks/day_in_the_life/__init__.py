"""A day in the life: the recipe's mix from its vocabulary corpus to its check, on hosts that share a bucket alone."""
