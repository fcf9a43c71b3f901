"""The running of a job: options, Dataflow, local workers, failures."""
