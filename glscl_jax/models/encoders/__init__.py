"""Towers: captions to tokens, frames to features, and what mixes frames over time."""
