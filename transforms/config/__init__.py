"""Config files: YAML with lines, sections, and the meaning of paths in them; no key is known here."""
