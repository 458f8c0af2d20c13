"""The embedded store: an SQLite ledger, graph segments and full-text search."""
