"""Ways to fine-tune that every task shares: ULMFiT's, GPT-1's, and adapting to a domain first."""
