"""Documents that show the output of commands: a tutorial, a notebook and pictures, each by a command of its own."""
