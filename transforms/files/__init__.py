"""Files on every filesystem that Beam knows: reading, atomic writing, renames, the hub, scratch files."""
