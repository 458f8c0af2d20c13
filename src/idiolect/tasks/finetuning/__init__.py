"""Fine-tuning methods for all tasks: ULMFiT's, GPT-1's, and domain adaptation."""
