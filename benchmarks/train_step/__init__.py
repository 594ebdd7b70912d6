"""A training step of this project, and the same model in PyTorch."""
