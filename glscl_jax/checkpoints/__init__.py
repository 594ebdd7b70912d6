"""What lies on disk: a run's state and work directory, and a model directory's parameters."""
