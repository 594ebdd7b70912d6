"""What tests hold this project to and benchmarks time it beside or feed it with.

Neither of the two imports the other: this lies between them. The library does not need it.
"""
