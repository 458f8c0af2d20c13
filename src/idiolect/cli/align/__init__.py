"""The commands that align language models: `idiolect align …`."""
