"""The jobs that a person starts, one module each, the schema of their config, and the command line."""

import os

# Nothing here multiplies matrices. Without threads of NumPy's own, which looks at this when it is imported, the process
# of a job can be forked.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
