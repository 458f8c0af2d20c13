"""What commands have in common that run on a cluster, and the launcher of training."""
