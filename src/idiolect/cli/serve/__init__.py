"""The commands of the server: `idiolect serve` and `idiolect keys`."""
