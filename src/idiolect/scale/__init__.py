"""The same verbs on many machines: audit, encode, index and evaluate on Ray, files in any store."""
