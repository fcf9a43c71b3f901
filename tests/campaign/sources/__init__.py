"""Sources that are odd, but whole: their plans, and their builds."""
