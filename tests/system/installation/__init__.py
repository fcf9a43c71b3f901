"""What the package is installed from, and with."""
