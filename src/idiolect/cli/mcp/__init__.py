"""`idiolect mcp`: an index as tools of an assistant."""
