"""`idiolect mcp`: an index as tools for an assistant."""
