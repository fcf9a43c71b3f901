"""How far work is: the counters that workers keep, what an earlier run has found, and the display of both."""
