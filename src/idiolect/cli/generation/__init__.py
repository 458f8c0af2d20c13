"""Commands that write text, and that measure models by tasks."""
