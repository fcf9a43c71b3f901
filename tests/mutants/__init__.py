"""Mutation testing: small changes to the core, one at a time, each of which some near test has to catch."""
