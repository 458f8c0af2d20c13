"""The pipeline: build a model, its index, an evaluation and a report from one configuration."""
