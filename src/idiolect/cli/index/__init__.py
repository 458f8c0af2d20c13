"""The commands on indexes: `idiolect index …`, `search` and `similar`."""
