"""What lies on disk: a run's state and work directory, and the parameters of any model directory."""
