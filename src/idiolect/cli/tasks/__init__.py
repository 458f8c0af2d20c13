"""The commands that train and use models of tasks: `idiolect tasks …`."""
