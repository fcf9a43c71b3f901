"""The sources that the package is installed from, and the packages that come with it."""
