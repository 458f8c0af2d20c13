"""The graphs of a store, which are derived from its ledger."""
