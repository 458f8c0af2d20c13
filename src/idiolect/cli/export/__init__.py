"""`idiolect export`: models in the formats of other programs."""
