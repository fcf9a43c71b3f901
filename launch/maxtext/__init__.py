"""MaxText's command, settings and checks."""
