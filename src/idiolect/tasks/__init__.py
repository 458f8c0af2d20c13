"""Tasks: what trained models are used and measured for."""
