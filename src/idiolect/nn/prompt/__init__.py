"""Prompt tuning and prefix tuning: virtual tokens that are learnt while the network is frozen."""
