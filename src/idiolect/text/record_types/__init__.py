"""The types of record files: how their bytes become rows, and the faults of rows."""
