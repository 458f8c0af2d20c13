"""The commands that train and use models for tasks: `idiolect tasks …`."""
