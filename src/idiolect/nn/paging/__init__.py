"""A cache of keys and values in pages, for texts that join and leave a batch."""
