"""Adapters that offer the index and encoders through the interfaces of other frameworks."""
