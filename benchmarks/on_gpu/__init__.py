"""Training steps, attention, scores and augmentation on a GPU, each in a process of its own."""
