"""A converted checkpoint against the library that it came from, stage by stage."""
