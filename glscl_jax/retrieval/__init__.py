"""Encode a split, score it, rank it: what validation, evaluation and search share."""
