"""The published model families as data, one file per group of related families."""
