"""The commands that train and use translators: `idiolect translate …`."""
