"""The commands on recommenders: `idiolect recommend …`."""
