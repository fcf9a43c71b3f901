"""How far work is: the counters that workers keep, the findings of an earlier run, and the display of both."""
