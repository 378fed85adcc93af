"""The SVI loop of each backend, the run folder and its checkpoints."""
