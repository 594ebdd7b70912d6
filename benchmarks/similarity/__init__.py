"""What the scores of all pairs cost."""
