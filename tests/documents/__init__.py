"""Documents that show what commands print: a tutorial, a notebook and pictures, all made by commands of their own."""
