"""The schema of a training config, and the names and prices of TPUs."""
