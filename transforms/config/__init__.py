"""Config files: YAML with lines, sections, and what paths in them mean; no key is known here."""
