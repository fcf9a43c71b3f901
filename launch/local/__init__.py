"""Training on this machine: the trainer's environment and process, its log and progress."""
