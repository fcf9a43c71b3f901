"""Starting the MaxText job on what was built: its command, its mixture file, and where it runs."""
