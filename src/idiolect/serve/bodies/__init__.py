"""Pydantic models of request and response bodies, with examples for OpenAPI."""
