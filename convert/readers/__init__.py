"""Checkpoints as others publish them, each kind of file read without running what is in it."""
