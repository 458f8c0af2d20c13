"""The published families, one file a group of relatives: data, and nothing else."""
