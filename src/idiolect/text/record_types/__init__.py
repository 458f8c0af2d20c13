"""Parsers of record files by type, which report the rows they cannot read."""
