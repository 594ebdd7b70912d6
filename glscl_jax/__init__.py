"""GLSCL text-video retrieval in JAX and Flax."""
