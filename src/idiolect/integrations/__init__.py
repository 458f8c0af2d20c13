"""The index and encoders behind interfaces of other frameworks."""
