"""One build at an output: locks on files and buckets, who holds them, and how their loss ends a build."""
