"""Options of commands that run on a cluster, and the training launcher."""
