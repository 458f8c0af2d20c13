"""What requests and responses hold: models that check every value, with examples for OpenAPI."""
