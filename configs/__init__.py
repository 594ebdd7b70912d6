"""Recipes: data only, importing nothing of glscl_jax."""
