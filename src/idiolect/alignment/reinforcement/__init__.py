"""Reinforcement learning of a language model's completions (PPO, RLOO, GRPO)."""
