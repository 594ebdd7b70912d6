"""Training steps by the counts of the compilers of devices that are not here."""
