"""Published models: how each family's configuration and weights map to the one Transformer."""
