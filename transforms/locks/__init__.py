"""One build at an output: locks on files and buckets, their owners, and the end of a build that loses its lock."""
