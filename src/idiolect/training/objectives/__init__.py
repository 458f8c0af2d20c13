"""What a step minimises: one small object an objective, all driven by the same loop."""
