"""Which tensor of a published checkpoint is which parameter here, and what shape it has."""
