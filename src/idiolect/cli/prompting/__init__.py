"""The commands of prompts: `idiolect prompt …`."""
