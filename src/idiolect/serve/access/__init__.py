"""Access control: authentication, rate limits, and limits on request bodies."""
