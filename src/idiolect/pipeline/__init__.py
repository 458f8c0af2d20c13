"""The pipeline: build a model, an index, an evaluation and a report from one configuration."""
