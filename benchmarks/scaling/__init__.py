"""A training step on many devices: what each computes, holds and sends, counted and by formula."""
