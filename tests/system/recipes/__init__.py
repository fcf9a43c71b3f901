"""Recipes as their authors write them: filtered, repeated, grown and traced builds, end to end."""
