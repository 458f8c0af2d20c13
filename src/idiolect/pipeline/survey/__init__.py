"""`idiolect init`: survey a folder of data, and propose a configuration for it."""
