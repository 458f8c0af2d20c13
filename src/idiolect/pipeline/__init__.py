"""The pipeline: one configuration in; a model, its index, an evaluation and a report out."""
