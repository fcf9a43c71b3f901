"""How a job runs: options, Dataflow, local workers, failures."""
