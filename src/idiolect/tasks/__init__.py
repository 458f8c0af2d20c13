"""Tasks: what a model is good for, measured or trained."""
