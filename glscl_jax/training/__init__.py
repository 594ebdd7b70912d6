"""What a training step computes, and what a run reads and logs."""
