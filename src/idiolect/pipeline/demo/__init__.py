"""The demo: the NumPy and SciPy API as a catalogue."""
