"""Ways from clips to batches that a step can take, each a process that prints its figures."""
