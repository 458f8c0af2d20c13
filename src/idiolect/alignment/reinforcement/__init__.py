"""Reinforcement: raise a reward of what a language model writes (PPO, RLOO, GRPO)."""
