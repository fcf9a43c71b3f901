"""The mixes as YAML files; this module makes them package data."""
