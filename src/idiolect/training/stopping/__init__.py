"""Stop a run: on a signal, or when the validation loss no longer improves; and lock its folder."""
