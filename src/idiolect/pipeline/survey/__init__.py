"""`idiolect init`: look at a folder of data, and propose a configuration for it."""
