"""Who may send a request, how often, and how large it may be."""
