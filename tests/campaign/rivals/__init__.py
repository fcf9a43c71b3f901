"""Trials of the fault campaign in which somebody else is at work, or was: late workers, other builds, lying files."""
