"""Terminal, progress, and the layout of tables."""
