"""What an evaluation reads and leaves: its task, run card, ranks, report."""
